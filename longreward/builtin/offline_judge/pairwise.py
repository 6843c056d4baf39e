"""The offline judge's rule for `pair.method: pairwise`: what the document bears out, what it holds on the question.

It answers `[[A]]`, `[[B]]` or `[[C]]` and is as blind to meaning as the rest of it. Its verdict does not depend on the
order of the two.
"""

from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.lexical import Sentence, parse_sentence, repetition_rate, split_sentences
from longreward.builtin.offline_judge.overlap import coverage, evidence_sentences, relevance, support_level

MOST_SENTENCES = 60
CLOSE = 0.02


def compare(slots: Mapping[str, str]) -> str:
    """The one of more worth; neither where they are close."""
    evidence, question = evidence_sentences(slots["context"]), parse_sentence(slots["question"])
    points = [(s, weight) for s in evidence if (weight := relevance(question, s)) > 0]
    (a, why_a), (b, why_b) = (_worth(slots[f"answer_{side}"], evidence, points, question) for side in "ab")
    verdict = "C" if abs(a - b) < CLOSE else "A" if a > b else "B"
    return f"A: {why_a} B: {why_b}\nBetter: [[{verdict}]]"


def _worth(
    answer: str, evidence: tuple[Sentence, ...], points: list[tuple[Sentence, float]], question: Sentence
) -> tuple[float, str]:
    """From 0 to 1, and why: half for what is borne out, half for what is told of the document's points."""
    given = list(split_sentences(answer)[:MOST_SENTENCES])
    if not given:
        return 0.0, "it says nothing."
    if evidence:
        borne_out = sum(support_level(s, evidence)[0] for s in given) / len(given)
    else:
        borne_out = sum(bool(s.terms & question.terms) for s in given) / len(given)
    total = sum(weight for _, weight in points)
    covered = sum(weight * coverage(given, s, question) for s, weight in points) / total if points else borne_out
    worth = 0.5 * borne_out + 0.5 * covered - 0.2 * repetition_rate([(s.order, s.negated) for s in given])
    return worth, f"borne out {borne_out:.2f}, told {covered:.2f}."


RULES: dict[str, Callable[[Mapping[str, str]], str]] = {"pairwise": compare}
