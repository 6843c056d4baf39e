"""A stand-in for a judge that needs no network, key or model: it compares words, numbers and names.

It replies to the prompts of the reward in the format that they ask for, from a request's slots alone. It is
deterministic and knows no meaning: a paraphrase without a common word counts as different. Its scores rank responses
that differ in facts, and do not replace a language model's. Results carry its name, `offline-lexical-2`. A change of
any verdict needs a new number in this name, since the ledger serves earlier verdicts by name.
"""

import re
from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.benchmark_rules import BENCHMARK_RULES, SYNTHESIS_RULES
from longreward.builtin.offline_judge.lexical import (
    Sentence,
    neutralize,
    parse_sentence,
    repetition_rate,
    split_sentences,
)
from longreward.builtin.offline_judge.overlap import (
    QuestionPart,
    clauses,
    coverage,
    evidence_clauses,
    evidence_sentences,
    is_contradiction,
    question_parts,
    relevance,
    support_level,
)
from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import JudgeRefused

Slots = Mapping[str, str]
NAME = "offline-lexical-2"
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
    """Rate whether each part of the question gets a value of the kind it asks for, relevant and in clean sentences."""
    parts, sentences = question_parts(slots["question"]), _response_sentences(slots)
    if not sentences:
        return _rating("The answer is empty.", 0)
    if is_refusal(slots["answer"]):
        return _rating("The answer declines to say what was asked.", 1)
    answered = []
    terms = frozenset().union(*(s.terms for s in sentences))
    for part in parts:
        share = max(_answer_share(part, s) for s in sentences)
        if _is_open(part):  # also the share of its words that the response takes up
            part_words = _topic_words(part)
            share *= 0.5 + 0.5 * len(part_words & terms) / len(part_words)
        answered.append(share)
    mean = sum(answered) / len(answered)
    words = frozenset().union(*(_topic_words(part) for part in parts))
    stray = sum(not s.terms & words for s in sentences) / len(sentences) if words and len(sentences) > 1 else 0
    points = {
        f"{len(parts)} part(s) asked, met to {mean:.2f}": 10 * mean,
        f"{stray:.2f} of the sentences are off the question": 0 if any(map(_is_open, parts)) else -2 * stray,
        "some of it is said twice": -4 * repetition_rate([(s.order, s.negated) for s in sentences]),
        "it breaks off": 0 if sentences[-1].finished else -1,
        "it is very long for what was asked": -1 if len(sentences) > 12 + 4 * len(parts) else 0,
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
        "it breaks off": 0 if sentences[-1].finished else -1.5,
        "brackets or quotes stay open": 0 if balanced else -1,
    }
    return _sum_up(points, start=10, otherwise="No fault was found.")


def statements(slots: Slots) -> str:
    """List the response's sentences that state a fact, with a leading he or she replaced by the name."""
    stated: list[str] = []
    seen: set[str] = set()
    subject = _first_name(slots["question"])
    sentences = _response_sentences(slots)
    for s in sentences:
        is_remark = s.text.endswith((":", "：", "?", "？")) or not s.terms - _FILLER or _REFUSAL.search(s.text)
        is_inference = _INFERENCE.match(s.text) and (s.numbers | s.name_terms) <= seen
        if not is_remark and not is_inference:
            is_bare = len(sentences) == 1 and len(s.order) <= MAX_BARE_TERMS  # "In 1861." needs its question
            if is_bare:
                stated.append(f"{slots['question'].strip(' ?？')}: {s.text}")
            elif subject:
                stated.append(_LEADING_POSSESSIVE.sub(f"{subject}'s", _LEADING_PRONOUN.sub(subject, s.text)))
            else:
                stated.append(s.text)
        seen |= s.terms
        subject = _first_name(s.text) or subject
    lines = [f"<statement>{neutralize(text)}</statement>" for text in stated] or [NO_STATEMENT]
    return f"The answer holds {len(stated)} sentence(s) that state a fact.\n" + "\n".join(lines)


def support(slots: Slots) -> str:
    """Return whether one sentence of the evidence supports the statement, or each of its clauses."""
    evidence = evidence_clauses(slots["context"], joined=True)
    level, closest = support_level(parse_sentence(slots["statement"].strip()), evidence)
    verdict = {1.0: "Fully supported", 0.5: "Partially supported", 0.0: "No support"}[level]
    return f'The closest passage is: "{neutralize(closest.text if closest else "none")}".\n[[{verdict}]]'


def extraction(slots: Slots) -> str:
    """List the chunk's sentences that are most relevant to the question; names weigh more than words."""
    question = parse_sentence(slots["question"])
    rated = [(relevance(question, s), i, s.text) for i, s in enumerate(evidence_sentences(slots["context"]))]
    best = sorted((item for item in rated if item[0] > 0), key=lambda item: (-item[0], item[1]))[:MAX_EXTRACTS]
    lines = [f"{n}. {neutralize(text)}" for n, (_, _, text) in enumerate(sorted(best, key=lambda item: item[1]), 1)]
    return "\n".join(lines) if lines else NOTHING_RELEVANT


def completeness(slots: Slots) -> str:
    """Rate the share of the relevant points that the response covers, weighted by their relevance."""
    question = parse_sentence(slots["question"])
    weights = {s.text: (s, relevance(question, s)) for s in evidence_clauses(slots["context"])}
    points = [(s, weight) for s, weight in weights.values() if weight > 0]
    parts = [part for s in _response_sentences(slots) for part in {s, *clauses(s)}]
    if not parts or not points:
        return _rating("Nothing to compare.", 0 if not parts else 8 if is_refusal(slots["answer"]) else 5)
    total = sum(weight for _, weight in points)
    covered = sum(weight * coverage(parts, s, question) for s, weight in points) / total
    return _rating(f"Of {len(points)} relevant point(s), {covered:.2f} by weight are in the answer.", 10 * covered)


REWARD_RULES: dict[str, Callable[[Slots], str]] = {
    "helpfulness": helpfulness,
    "logicality": logicality,
    "statements": statements,
    "support": support,
    "extraction": extraction,
    "completeness": completeness,
}


def is_refusal(text: str) -> bool:
    """Return whether a text of one or two sentences says that the question cannot be answered."""
    sentences = split_sentences(text)
    return 0 < len(sentences) <= 2 and bool(_REFUSAL.search(sentences[0].text))


def _response_sentences(slots: Slots) -> tuple[Sentence, ...]:
    return split_sentences(slots["answer"])[:MAX_SENTENCES]


def _answer_share(part: QuestionPart, s: Sentence) -> float:
    """Return from 0 to 1 how far a sentence answers a part of the question."""
    about = part.about
    if not about.terms:  # "Summarise the document": any statement does
        return 1.0 if len(s.terms) > MAX_BARE_TERMS else 0.2
    new = s.terms - about.terms
    people = [name for name in s.names if not name & about.terms]
    values = {"number": s.numbers - about.terms, "person": people, "place": people, "anything": new}
    # Chinese names look like words, and a name that begins a bare answer looks like any capitalized word.
    has_value = bool(values[part.kind] or (part.kind in ("person", "place") and new and not s.names))
    words = _topic_words(part)
    on_topic = bool(words & s.terms) or (not words and bool(about.terms & s.terms))
    if has_value:
        return 1.0 if on_topic else 0.7 if len(s.order) <= MAX_BARE_TERMS else 0.2
    return 0.3 if on_topic else 0.0


def _is_open(part: QuestionPart) -> bool:
    """Return whether the part asks for more than a value: a how or why in many words."""
    return part.kind == "anything" and len(_topic_words(part)) > 4


def _topic_words(part: QuestionPart) -> frozenset[str]:
    return part.about.terms - part.about.name_terms


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


_REFUSAL = re.compile(
    r"\b(?:document|text|passage|context|article|paper|information)s?\b.{0,200}\b(?:not|no|n't)\b.{0,200}"
    r"\b(?:mention|contain|say|specif|provid|state|give|answer|includ|describ)"
    r"|\bI (?:do not|don['’]t|cannot|can['’]t|am unable|could not|am sorry)|\bno (?:relevant )?information\b"
    r"|\bcannot be (?:answered|determined)|\bnot (?:mentioned|specified|stated|given|provided) in the\b"
    r"|未提及|没有提到|没有提及|无法(?:回答|确定|得知)|不知道|没有相关信息|抱歉",
    re.I,
)
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
_LEADING_PRONOUN = re.compile(r"^(?:He|She)\b")
_LEADING_POSSESSIVE = re.compile(r"^(?:His|Her)\b")
