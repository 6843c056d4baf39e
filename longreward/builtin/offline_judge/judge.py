"""A rule-based judge that needs no network, key or model: it compares words, numbers and names.

It replies to the prompts of the reward in the format that they ask for, from a request's slots alone. It is
deterministic and knows no meaning: a paraphrase without a common word counts as different. Its scores rank responses
that differ in facts, and do not replace a language model's. Results carry its name, `offline-lexical-5`. A change of
any verdict needs a new number in this name, since the ledger serves earlier verdicts by name.
"""

import re
from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.answer_candidates import answer_share, extract_relevance
from longreward.builtin.offline_judge.benchmark_rules import BENCHMARK_RULES, SYNTHESIS_RULES
from longreward.builtin.offline_judge.lexical import (
    META,
    Sentence,
    neutralize,
    parse_sentence,
    repetition_rate,
    split_sentences,
)
from longreward.builtin.offline_judge.optional_dimension_rules import OPTIONAL_DIMENSION_RULES
from longreward.builtin.offline_judge.overlap import (
    SUPPORT_LABELS,
    clauses,
    coverage,
    evidence_clauses,
    evidence_sentences,
    is_contradiction,
    relevance,
    support_level,
)
from longreward.builtin.offline_judge.sub_questions import VALUE_TYPES, SubQuestion, polar_claim, split_question
from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import JudgeRefused

Slots = Mapping[str, str]
NAME = "offline-lexical-5"
NO_STATEMENT = "<no_statement/>"
NOTHING_RELEVANT = "No relevant information"
MAX_SENTENCES = 300  # of a response; one without end is cut
MAX_EXTRACTS = 8  # sentences from one chunk
MAX_BARE_TERMS = 2  # in an answer that is only a value, such as "In 1861."


class OfflineJudge:
    """A ChatModel that replies at once."""

    @property
    def name(self) -> str:
        return NAME

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        """Reply by the rule of the request's template; raises JudgeRefused if there is none."""
        rule = (REWARD_RULES | BENCHMARK_RULES | SYNTHESIS_RULES).get(request.template)
        if rule is None:
            raise JudgeRefused(
                f"the offline judge knows no template {request.template!r}, only "
                f"{', '.join([*REWARD_RULES, *BENCHMARK_RULES])}; set judge.kind to http for others"
            )
        return ChatReply(rule(request.slots), model=NAME)

    async def close(self) -> None:
        """Do nothing: there is no connection."""


def helpfulness(slots: Slots) -> str:
    """Rate whether each sub-question gets a value of the kind it asks for, relevant and in clean sentences."""
    sub_questions, sentences = split_question(slots["question"]), _answer_units(slots)
    if not sentences:
        return _rating("The answer is empty.", 0)
    if is_refusal(slots["answer"]):
        return _rating("The answer declines to say what was asked.", 1)
    answered = []
    terms = frozenset().union(*(s.terms for s in sentences))
    for sub_question in sub_questions:
        share = max(_answer_share(sub_question, s) for s in sentences)
        if sub_question.is_open and sub_question.topic_words:  # also the share of its words that the response takes up
            share *= 0.5 + 0.5 * len(sub_question.topic_words & terms) / len(sub_question.topic_words)
        answered.append(share)
    mean = sum(answered) / len(answered)
    words = frozenset().union(*(q.topic_words for q in sub_questions))
    stray = 0.0
    if words and len(sentences) > 1:
        question = parse_sentence(slots["question"])
        stray = sum(not s.terms & words and not _is_fragment(s, question) for s in sentences) / len(sentences)
    stray_weight = 0 if any(q.is_open for q in sub_questions) else -2
    points = {
        # The first value helps most.
        f"{len(sub_questions)} part(s) asked, met to {mean:.2f}": 10 * mean * (1.5 - 0.5 * mean),
        f"{stray:.2f} of the sentences are off the question": stray_weight * stray,
        "some of it is said twice": -4 * repetition_rate([(s.order, s.negated) for s in sentences]),
        "it is truncated": 0 if _is_ended(sentences[-1]) else -1,
        "it is very long for what was asked": -1 if len(sentences) > 12 + 4 * len(sub_questions) else 0,
    }
    return _sum_up(points)


def logicality(slots: Slots) -> str:
    """Rate contradictions, repetitions, wrong calculations and unfinished text."""
    sentences = _response_sentences(slots)
    if not sentences:
        return _rating("The answer is empty.", 0)
    clashes = [(a, b) for i, b in enumerate(sentences) for a in sentences[:i] if is_contradiction(a, b)]
    wrong_sums = 0
    for x, sign, y, result in _SUM.findall(slots["answer"]):
        a, b, c = (float(number.replace(",", "")) for number in (x, y, result))
        value = a + b if sign == "+" else a * b if sign in "*×" else a - b
        wrong_sums += abs(value - c) >= 1e-6 * max(1.0, abs(c))
    example = f': "{neutralize(clashes[0][0].text)}" against "{neutralize(clashes[0][1].text)}"' if clashes else ""
    balanced = all(slots["answer"].count(a) == slots["answer"].count(b) for a, b in ("[]", "“”", "「」", "《》"))
    points = {
        f"{len(clashes)} contradiction(s){example}": -4 * min(2, len(clashes)),
        f"{wrong_sums} wrong calculation(s)": -3 * min(2, wrong_sums),
        "it repeats itself": -6 * repetition_rate([(s.order, s.negated) for s in sentences]),
        "a word is repeated over and over": -3 if _STUTTER.search(slots["answer"]) else 0,
        "it is truncated": 0 if _is_ended(sentences[-1]) else -1.5,
        "brackets or quotes stay open": 0 if balanced else -1,
    }
    return _sum_up(points, start=10, otherwise="No fault was found.")


def statements(slots: Slots) -> str:
    """List the response's sentences that state a fact, with a leading he or she replaced by the name."""
    stated: list[str] = []
    seen: set[str] = set()
    subject = _first_name(slots["question"])
    question = parse_sentence(slots["question"])
    is_polar = any(q.answer_type == "polar" for q in split_question(slots["question"]))
    for s in _response_sentences(slots):
        if is_polar and polar_claim(question, s):
            stated.append(f"The answer to “{question.text.strip(' ?？')}” is: {s.text}")
            continue
        is_question = s.text.endswith(("?", "？")) and s.terms - question.terms <= META
        is_remark = is_question or s.text.endswith((":", "：")) or not s.terms - _FILLER or _REFUSAL.search(s.text)
        is_inference = _INFERENCE.match(s.text) and (s.numbers | s.name_terms) <= seen
        if not is_remark and not is_inference:
            if _is_fragment(s, question):  # "In 1861." needs its question
                stated += _answers_as_statements(slots["question"], s)
            elif subject:
                stated.append(_LEADING_POSSESSIVE.sub(f"{subject}'s", _LEADING_PRONOUN.sub(subject, s.text)))
            else:
                stated.append(s.text)
        seen |= s.terms
        subject = _first_name(s.text) or subject
    lines = [f"<statement>{neutralize(text)}</statement>" for text in stated] or [NO_STATEMENT]
    return f"The answer has {len(stated)} sentence(s) that state a fact.\n" + "\n".join(lines)


def support(slots: Slots) -> str:
    """Return whether one sentence of the evidence supports the statement, or each of its clauses.

    A statement that quotes a question is supported if its values are those of the evidence that the question asks for.
    """
    evidence = evidence_clauses(slots["context"], joined=True)
    claim = parse_sentence(slots["statement"].strip())
    if match := _QUOTED_QUESTION.match(claim.text):
        claim = parse_sentence(match["answer"].strip())
        level = _fragment_support(match["question"], claim, evidence)
        closest = max(evidence, key=lambda e: len(e.terms & claim.terms), default=None)
    else:
        level, closest = support_level(claim, evidence)
    return f'The closest passage is: "{neutralize(closest.text if closest else "none")}".\n[[{SUPPORT_LABELS[level]}]]'


def support_list(slots: Slots) -> str:
    """Return the support of each of several numbered statements."""
    statements = (line.partition(". ")[2] for line in slots["statement"].splitlines())
    replies = (support({**slots, "statement": statement}) for statement in statements)
    return "\n".join(f"{number}. {' '.join(reply.split())}" for number, reply in enumerate(replies, 1))


def extraction(slots: Slots) -> str:
    """List the chunk's sentences that are most relevant to the question; names weigh more than words."""
    question, sentences = parse_sentence(slots["question"]), evidence_sentences(slots["context"])
    sub_questions = split_question(slots["question"])
    rated = [
        (relevance(question, s) or 0.5 * extract_relevance(sub_questions, sentences, i), i, s.text)
        for i, s in enumerate(sentences)
    ]
    best = sorted((item for item in rated if item[0] > 0), key=lambda item: (-item[0], item[1]))[:MAX_EXTRACTS]
    lines = [f"{n}. {neutralize(text)}" for n, (_, _, text) in enumerate(sorted(best, key=lambda item: item[1]), 1)]
    return "\n".join(lines) if lines else NOTHING_RELEVANT


def completeness(slots: Slots) -> str:
    """Rate the share of what the question asks for that the response covers.

    For an open question these are the relevant points, weighted by their relevance.
    """
    question, sub_questions = parse_sentence(slots["question"]), split_question(slots["question"])
    evidence, sentences = evidence_clauses(slots["context"], joined=True), _answer_units(slots)
    if not sentences:
        return _rating("The answer is empty.", 0)
    if not evidence:
        has_value = any(_answer_share(q, s) >= 0.7 for q in sub_questions for s in sentences)
        return _rating("Nothing to compare.", 8 if is_refusal(slots["answer"]) else 5 if has_value else 2)
    closed = [q for q in sub_questions if not q.is_open]
    shares = [answer_share(closed, evidence, sentences)] * len(closed) if closed else []
    analysis = f"Of what {len(closed)} part(s) ask for, {shares[0]:.2f} is in the answer. " if closed else ""
    if len(closed) < len(sub_questions):
        weights = {s.text: (s, relevance(question, s)) for s in evidence}
        points = [(s, weight) for s, weight in weights.values() if weight > 0]
        clauses_of_answer = [clause for s in sentences for clause in {s, *clauses(s)}]
        total = sum(weight for _, weight in points) or 1.0
        covered = sum(weight * coverage(clauses_of_answer, s, question) for s, weight in points) / total
        shares += [covered] * (len(sub_questions) - len(closed))
        analysis += f"Of {len(points)} relevant point(s), {covered:.2f} by weight are in the answer."
    return _rating(analysis.strip(), 10 * sum(shares) / len(shares))


REWARD_RULES: dict[str, Callable[[Slots], str]] = {
    "helpfulness": helpfulness,
    "logicality": logicality,
    "statements": statements,
    "support": support,
    "support_list": support_list,
    "extraction": extraction,
    "completeness": completeness,
    **OPTIONAL_DIMENSION_RULES,
}


def is_refusal(text: str) -> bool:
    """Return whether a text of one or two sentences says that the question cannot be answered."""
    sentences = split_sentences(text)
    return 0 < len(sentences) <= 2 and bool(_REFUSAL.search(sentences[0].text))


def _response_sentences(slots: Slots) -> tuple[Sentence, ...]:
    """Return the response's sentences without what is addressed to a judge: headings, verdicts, tags, self-praise."""
    text = _MARKUP.sub(" ", slots["answer"])
    return tuple(s for s in split_sentences(text) if not _is_to_judge(s))[:MAX_SENTENCES]


def _is_to_judge(s: Sentence) -> bool:
    """Return whether a sentence gives orders to a judge, or praises the answer and holds no value."""
    return bool(_ORDER.search(s.text) or (_PRAISE.search(s.text) and not s.values and not s.names))


def _answer_units(slots: Slots) -> tuple[Sentence, ...]:
    """Return the response's sentences, or the items of a list of values with one for each sub-question."""
    sentences = _response_sentences(slots)
    if len(sentences) == 1 and _is_fragment(sentences[0], parse_sentence(slots["question"])):
        items = _fragment_items(sentences[0])
        if len(items) == len(split_question(slots["question"])):
            return tuple(map(parse_sentence, items))
    return sentences


def _answer_share(sub_question: SubQuestion, s: Sentence) -> float:
    """Return from 0 to 1 how far a sentence answers a sub-question."""
    about = sub_question.about
    if sub_question.answer_type == "anything" and not about.terms:  # "Summarise the document": any statement does
        return 1.0 if len(s.terms) > MAX_BARE_TERMS else 0.2
    if sub_question.answer_type == "polar" and polar_claim(about, s):
        return 1.0
    new = s.terms - about.terms - META
    words = sub_question.topic_words
    on_topic = bool(words & s.terms) or (not words and bool(about.terms & s.terms))
    if sub_question.answer_type in VALUE_TYPES:
        count = len({value.term for value in sub_question.select_values(s)})
    elif sub_question.answer_type == "polar":
        count = 1
    elif sub_question.answer_type == "anything":
        count = min(1, len(new))
    else:
        # Chinese names look like words, and a name that begins a bare answer looks like any capitalized word.
        names = [name for name in s.names if not name & sub_question.question_names]
        count = len(names) or int(bool(new) and not s.names)
    if s.text.endswith(("?", "？")):
        return 0.1
    if not count:
        return 0.3 if on_topic else 0.0
    if on_topic:
        return 1.0
    return 0.3 if not _is_fragment(s, about) else 0.7 if sub_question.answer_type == "anything" else 1.0


def _is_fragment(s: Sentence, question: Sentence) -> bool:
    """Return whether a sentence is hardly more than values, and needs the question to be understood."""
    if not s.terms - META or (s.words - META) & question.words or _VERB.search(s.text):
        return False
    items = [parse_sentence(item) for item in _fragment_items(s)]
    has_subject = any(item.words and (item.order[0] in item.name_terms or _PRONOUN.match(item.text)) for item in items)
    return not has_subject and all(len(item.words - META) <= MAX_BARE_TERMS for item in items)


def _fragment_items(s: Sentence) -> list[str]:
    """Return the items of a list such as "1861, Kelden and tea"."""
    return [item.strip() for item in _ITEM.split(s.text) if item.strip()]


def _answers_as_statements(question: str, s: Sentence) -> list[str]:
    """Return a statement for each item, if there is one for each sub-question; otherwise a single one."""
    sub_questions, items = split_question(question), _fragment_items(s)
    if len(items) != len(sub_questions):
        sub_questions, items = (SubQuestion("anything", parse_sentence(question.strip())),), [s.text]
    stated = []
    for sub_question, item in zip(sub_questions, items, strict=True):
        about = sub_question.about
        missing = [name for name in about.names if not name <= parse_sentence(about.text).terms]
        of_whom = f" ({_first_name(question)})" if missing else ""
        stated.append(f"The answer to “{about.text}{of_whom}” is: {item}")
    return stated


def _fragment_support(question: str, answer: Sentence, evidence: tuple[Sentence, ...]) -> float:
    """Return how far the evidence supports the values of an answer to the question."""
    terms = frozenset().union(*(e.terms for e in evidence))
    if (answer.numbers | answer.name_terms) - parse_sentence(question).terms - terms:
        return 0.0
    share = answer_share(split_question(question), evidence, [answer])
    return 1.0 if share >= 0.75 else 0.5 if share >= 0.25 else 0.0


def _is_ended(s: Sentence) -> bool:
    """Return whether a sentence is finished, or too short to break off."""
    return s.finished or (len(s.order) <= 6 and not _VERB.search(s.text))


def _first_name(text: str) -> str:
    """Return the first name of several words in a text; "" if there is none."""
    match = _FULL_NAME.search(text)
    return match.group() if match else ""


def _sum_up(points: Mapping[str, float], *, start: float = 0, otherwise: str = "Nothing speaks for it.") -> str:
    """Return the rating of a sum of points, with those that counted as its analysis."""
    counted = "; ".join(f"{reason} ({points[reason]:+.1f})" for reason in points if points[reason])
    return _rating(counted or otherwise, start + sum(points.values()))


def _rating(analysis: str, rating: float) -> str:
    return f"{analysis}\n[[{min(10.0, max(0.0, rating)):.1f}]]"


_SOURCE = "(?:document|text|passage|context|article|paper|information|answer)s?"
_REFUSAL = re.compile(
    # The source itself must be what does not say it: documents report of things that others do not say or include.
    rf"\b{_SOURCE}\b(?: (?!sa|stat|report|show)\w+){{0,3}} (?:(?:contain|provide|give|mention|ha)s? no\b"
    r"|(?:does|do|did|could)(?: not|n['’]t)(?: \w+)?? "
    r"(?:mention|contain|say|specif|provid|state|give|answer|includ|describ))"
    r"|\bI (?:do not|don['’]t|cannot|can['’]t|am unable to|could not)(?: \w+)? "
    r"(?:know|see|find|have|say|tell|answer|determin|provid|help)"
    r"|\bI am sorry\b|\bno (?:relevant )?information\b|\b(?:can ?not|can['’]t) be (?:answered|determined)"
    rf"|\b{_SOURCE} (?:is|was)(?: not|n['’]t)(?: \w+)? (?:in the {_SOURCE}|mentioned|specified|stated|given|provided)\b"
    rf"|\bnot (?:mentioned|specified|stated|given|provided) in the {_SOURCE}\b"
    r"|未提及|没有提到|没有提及|无法(?:回答|确定|得知)|不知道|没有相关信息|抱歉",
    re.I,
)
_MARKUP = re.compile(  # of our prompts and of chat templates
    r"<think>.*?</think>|<\|?/?[a-z_]+/?\|?>(?:(?<=start\|>)assistant)?"
    r"|^[ \t]*[\[【][^\]】\n]{1,60}[\]】][ \t]*$|[\[【]{2}.{0,40}?[\]】]{2}|\((?:support|rating)\b[^()]{0,60}\)"
    r"|^[ \t]*(?:rating|support|score|评分|支持程度)[ \t]*[:：][ \t]*(?:[\[【][^\n]*|\d{1,2}(?:/10)?)?[ \t]*$",
    re.I | re.M | re.S,
)
_ORDER = re.compile(
    r"\bwhoever grades\b|\b(?:the|to) graders?\b|\b(?:grade|rate) (?:this|it|the (?:answer|response))\b|\bfull marks\b"
    r"|\b(?:give|award)\b.{0,30}\b\d+ points\b|\bignore (?:all|any|everything|the)\b.{0,12}\b(?:above|instructions)\b"
    r"|忽略(?:以上|上述|所有)|打满分|(?:给出?|打)\d+分",
    re.I,
)
_PRAISE = re.compile(
    r"\b(?:answer|response|assessment)s? (?:is|are|was) (?:\w+ )?"
    r"(?:right|correct|complete|perfect|excellent|accurate|helpful|consistent)(?= ?(?:[,.!。]|and\b|$))"
    r"|回答(?:正确|完美|完整)",
    re.I,
)
_QUOTED_QUESTION = re.compile(r"The answer to “(?P<question>.+?)” is: (?P<answer>.+)", re.S)
_VERB = re.compile(r"\b(?:is|are|was|were|be|been|has|have|had|does|did|will|can|could|would|should|may|might|must)\b")
_ITEM = re.compile(r"[,;] (?:and )?| and |[，；、]")
_INFERENCE = re.compile(
    r"(?:therefore|thus|hence|so|overall|in (?:conclusion|summary|short)|consequently)\b|因此|所以|总之|综上|总的来说",
    re.I,
)
_FILLER = frozenset().union(
    *(
        parse_sentence(text).terms
        for text in (
            "yes no sure certainly course hello hi dear thank thanks welcome ok okay hope help please let know here",
            "following answer question summary based provided information according document text glad happy further",
            "你好 您好 好的 谢谢 当然 以下 如下 希望 帮助",
        )
    )
)
_SUM = re.compile(
    r"(\d[\d,]{0,20}(?:\.\d{1,20})?) ?([+\-−*×]) ?(\d[\d,]{0,20}(?:\.\d{1,20})?) ?= ?(\d[\d,]{0,20}(?:\.\d{1,20})?)"
)
_STUTTER = re.compile(r"\b(\w+)(?:\W+\1\b){2,}|([\u4e00-\u9fff]{2,8})\2{2,}", re.I)
_FULL_NAME = re.compile(
    r"(?<![.!?] )\b(?!(?:The|A|An|In|On|At|By|As|He|She|It|When|Where|Who|Which|What|How)\b)[A-Z]\w+(?: [A-Z]\w+)+"
)
_PRONOUN = re.compile(r"(?:he|she|it|they|his|her|their|its|this|that)\b|[他她它]", re.I)
_LEADING_PRONOUN = re.compile(r"^(?:He|She)\b")
_LEADING_POSSESSIVE = re.compile(r"^(?:His|Her)\b")
