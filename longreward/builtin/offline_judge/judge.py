"""A stand-in for a judge that needs no network, key or model: it compares words, numbers and names.

It answers the questions of the reward in the grammar that the prompts ask for, from a question's slots alone. It is
deterministic and knows no meaning: a paraphrase without a shared word is lost on it. Its scores rank answers that
differ in facts; they are no substitute for a language model's, and carry the name `offline-lexical-2` wherever they
go. Whoever changes a verdict here raises that number, since the ledger serves what a name has said before.
"""

import re
from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.alpaca_eval import RULES as ALPACA_EVAL
from longreward.builtin.offline_judge.factscore import RULES as FACTSCORE
from longreward.builtin.offline_judge.lexical import Sentence, parse_sentence, repetition_rate, split_sentences
from longreward.builtin.offline_judge.longbench import RULES as LONGBENCH
from longreward.builtin.offline_judge.mt_bench import RULES as MT_BENCH
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
from longreward.builtin.offline_judge.pairwise import RULES as PAIRWISE
from longreward.builtin.offline_judge.writer import RULES as SYNTHESIS
from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import JudgeRefused

NAME = "offline-lexical-2"
NO_STATEMENT = "<no_statement/>"
NOTHING_RELEVANT = "No relevant information"


class OfflineJudge:
    """A ChatModel that answers at once; raises JudgeRefused for a template that it has no rule for."""

    @property
    def name(self) -> str:
        return NAME

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        rule = (RULES | BENCHMARKS | SYNTHESIS).get(request.template)
        if rule is None:
            raise JudgeRefused(
                f"the offline judge knows no template {request.template!r}, only {', '.join([*RULES, *BENCHMARKS])}; "
                "set judge.kind to http for others"
            )
        return ChatReply(rule(request.slots), model=NAME)

    async def close(self) -> None:
        """Nothing to let go of."""


def helpfulness(slots: Mapping[str, str]) -> str:
    """Does each part of the question get an answer of the kind it asks for, to the point and in clean sentences?"""
    asked, given = question_parts(slots["question"]), _given(slots)
    if not given:
        return _rating("The answer is empty.", 0)
    if is_refusal(slots["answer"]):
        return _rating("The answer declines to say what was asked.", 1)
    met = [max(_meets(part, s) for s in given) * _treated(part, given) for part in asked]
    words = frozenset().union(*(_words(part) for part in asked))
    stray = sum(not s.terms & words for s in given) / len(given) if words and len(given) > 1 else 0
    points = {
        f"{len(asked)} part(s) asked, met to {_share(met):.2f}": 10 * _share(met),
        f"{stray:.2f} of the sentences are off the question": 0 if any(map(_is_open, asked)) else -2 * stray,
        "some of it is said twice": -4 * repetition_rate([(s.order, s.negated) for s in given]),
        "it breaks off": 0 if given[-1].finished else -1,
        "it is very long for what was asked": -1 if len(given) > 12 + 4 * len(asked) else 0,
    }
    return _sum_up(points)


def logicality(slots: Mapping[str, str]) -> str:
    """Do sentences contradict or repeat each other, is a sum wrong, does the text break off?"""
    given = _given(slots)
    if not given:
        return _rating("The answer is empty.", 0)
    clashes = [(a, b) for i, b in enumerate(given) for a in given[:i] if is_contradiction(a, b)]
    wrong_sums = [m.group() for m in _SUM.finditer(slots["answer"]) if not _sum_holds(m)]
    found = f': "{quote(clashes[0][0].text)}" against "{quote(clashes[0][1].text)}"' if clashes else ""
    points = {
        f"{len(clashes)} contradiction(s){found}": -4 * min(2, len(clashes)),
        f"{len(wrong_sums)} wrong calculation(s)": -3 * min(2, len(wrong_sums)),
        "it repeats itself": -6 * repetition_rate([(s.order, s.negated) for s in given]),
        "a word is repeated over and over": -3 if _STUTTER.search(slots["answer"]) else 0,
        "it breaks off": 0 if given[-1].finished else -1.5,
        "brackets or quotes stay open": 0 if _balanced(slots["answer"]) else -1,
    }
    return _sum_up(points, start=10, otherwise="No fault was found.")


def statements(slots: Mapping[str, str]) -> str:
    """The answer's sentences that state a fact, a leading he or she replaced by the name that it stands for."""
    found: list[str] = []
    seen: set[str] = set()
    subject = _first_name(slots["question"])
    given = _given(slots)
    for s in given:
        if states_something(s, seen):
            bare = len(given) == 1 and len(s.order) <= _BARE  # "In 1861." says something only with its question
            found.append(f"{slots['question'].strip(' ?？')}: {s.text}" if bare else _with_name(s.text, subject))
        seen |= s.terms
        subject = _first_name(s.text) or subject
    lines = [f"<statement>{quote(text)}</statement>" for text in found] or [NO_STATEMENT]
    return f"The answer holds {len(found)} sentence(s) that state a fact.\n" + "\n".join(lines)


def support(slots: Mapping[str, str]) -> str:
    """Is the statement, or each of its clauses, borne out by one sentence of the evidence?"""
    level, best = support_level(
        parse_sentence(slots["statement"].strip()), evidence_clauses(slots["context"], joined=True)
    )
    verdict = {1.0: "Fully supported", 0.5: "Partially supported", 0.0: "No support"}[level]
    return f'The closest passage is: "{quote(best.text if best else "none")}".\n[[{verdict}]]'


def extraction(slots: Mapping[str, str]) -> str:
    """The sentences of the chunk that share what the question is about; names weigh more than words."""
    question = parse_sentence(slots["question"])
    scored = [(relevance(question, s), i, s.text) for i, s in enumerate(evidence_sentences(slots["context"]))]
    best = sorted((item for item in scored if item[0] > 0), key=lambda item: (-item[0], item[1]))[:_EXTRACTS]
    lines = [f"{n}. {quote(text)}" for n, (_, _, text) in enumerate(sorted(best, key=lambda item: item[1]), 1)]
    return "\n".join(lines) if lines else NOTHING_RELEVANT


def completeness(slots: Mapping[str, str]) -> str:
    """Which share of the relevant points does the answer cover, each by its bearing on the question?"""
    question = parse_sentence(slots["question"])
    weighted = {s.text: (s, relevance(question, s)) for s in evidence_clauses(slots["context"])}
    points = [(s, weight) for s, weight in weighted.values() if weight > 0]
    given = [g for s in _given(slots) for g in {s, *clauses(s)}]
    refuses = is_refusal(slots["answer"])
    if not given or not points:
        return _rating("Nothing to compare.", 0 if not given else 8 if refuses else 5)
    total = sum(weight for _, weight in points)
    covered = sum(weight * coverage(given, s, question) for s, weight in points) / total
    return _rating(f"Of {len(points)} relevant point(s), {covered:.2f} by weight are in the answer.", 10 * covered)


RULES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "helpfulness": helpfulness,
    "logicality": logicality,
    "statements": statements,
    "support": support,
    "extraction": extraction,
    "completeness": completeness,
}
BENCHMARKS: dict[str, Callable[[Mapping[str, str]], str]] = {
    **LONGBENCH,
    **MT_BENCH,
    **ALPACA_EVAL,
    **FACTSCORE,
    **PAIRWISE,
}
"""The rules for benchmarks' questions and `pair.method: pairwise`, by template, as those of the reward above."""
_EXTRACTS = 8  # sentences taken from one chunk at most
_BARE = 2  # terms up to which an answer is a bare value


def _given(slots: Mapping[str, str]) -> tuple[Sentence, ...]:
    """The sentences of the answer that count: all, but for an answer without end."""
    return split_sentences(slots["answer"])[:300]


def is_refusal(text: str) -> bool:
    """Whether a text of a sentence or two says that the question cannot be answered."""
    given = split_sentences(text)
    return 0 < len(given) <= 2 and bool(_REFUSAL.search(given[0].text))


def states_something(s: Sentence, seen: set[str]) -> bool:
    """Whether a sentence states a fact: no greeting, question, heading or refusal, and no mere "therefore"."""
    if s.text.endswith((":", "：", "?", "？")) or not s.terms - _FILLER or _REFUSAL.search(s.text):
        return False
    return not (_INFERENCE.match(s.text) and (s.numbers | s.name_terms) <= seen)


def quote(text: str) -> str:
    """The text on one line, without the signs of which verdicts and tags are made."""
    return " ".join(text.split()).translate(_NEUTRAL)


def _meets(part: QuestionPart, s: Sentence) -> float:
    """How far a sentence gives what the part asks for, 0 to 1."""
    about = part.about
    if not about.terms:  # "Summarise the document": whatever says something
        return 1.0 if len(s.terms) > _BARE else 0.2
    new = s.terms - about.terms
    people = [name for name in s.names if not name & about.terms]
    values = {"number": s.numbers - about.terms, "person": people, "place": people, "anything": new}
    # Chinese names cannot be told from words, and a name that opens a bare answer looks like any word.
    has_value = bool(values[part.asks] or (part.asks in ("person", "place") and new and not s.names))
    words = _words(part)
    fits = bool(words & s.terms) or (not words and bool(about.terms & s.terms))
    if has_value:
        return 1.0 if fits else 0.7 if len(s.order) <= _BARE else 0.2
    return 0.3 if fits else 0.0


def _treated(part: QuestionPart, given: tuple[Sentence, ...]) -> float:
    """From 0.5 to 1: how much of what an open question is about the whole answer takes up."""
    if not _is_open(part):
        return 1.0
    words = _words(part)
    return 0.5 + 0.5 * len(words & frozenset().union(*(s.terms for s in given))) / len(words)


def _is_open(part: QuestionPart) -> bool:
    """Whether the part asks for more than a value: a how or why in many words."""
    return part.asks == "anything" and len(_words(part)) > 4


def _words(part: QuestionPart) -> frozenset[str]:
    return part.about.terms - part.about.name_terms


def _first_name(text: str) -> str:
    """The first name of several words in a text, as it is written there."""
    match = _FULL_NAME.search(text)
    return match.group() if match else ""


def _with_name(text: str, name: str) -> str:
    if not name:
        return text
    return _LEADING_OWNER.sub(f"{name}'s", _LEADING_PRONOUN.sub(name, text))


def _sum_holds(match: re.Match[str]) -> bool:
    a, sign, b, result = match.groups()
    x, y, z = (float(number.replace(",", "")) for number in (a, b, result))
    found = {"+": x + y, "-": x - y, "−": x - y, "*": x * y, "×": x * y}[sign]
    return abs(found - z) < 1e-6 * max(1.0, abs(z))


def _balanced(text: str) -> bool:
    return all(text.count(opening) == text.count(closing) for opening, closing in ("[]", "“”", "「」", "《》"))


def _share(parts: list[float]) -> float:
    return sum(parts) / len(parts)


def _sum_up(points: Mapping[str, float], *, start: float = 0, otherwise: str = "Nothing speaks for it.") -> str:
    """A rating from points given and taken, with each that counted as its analysis."""
    counted = "; ".join(f"{reason} ({points[reason]:+.1f})" for reason in points if points[reason])
    return _rating(counted or otherwise, start + sum(points.values()))


def _rating(analysis: str, rating: float) -> str:
    return f"{analysis}\n[[{min(10.0, max(0.0, rating)):.1f}]]"


_NEUTRAL = str.maketrans("[]<>", "()‹›")
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
_LEADING_OWNER = re.compile(r"^(?:His|Her)\b")
