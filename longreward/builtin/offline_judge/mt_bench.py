"""The offline judge's rules for MT-Bench: words shared with the question and the reference, new words, repetition.

It answers in the grammar of the prompts, `[[7]]` for one answer and `[[A]]`, `[[B]]` or `[[C]]` for two, and is as
blind to meaning as the rest of it: it shows that everything works, and tells an answer from none.
"""

from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.lexical import Sentence, parse_sentence, repetition_rate, split_sentences
from longreward.builtin.offline_judge.overlap import coverage


def rate(slots: Mapping[str, str]) -> str:
    """A rating from 1 to 10 in halves, of the last turn that is shown."""
    turn = "_2" if "question_2" in slots else ""
    worth, why = merit(_asked(slots), slots.get(f"answer{turn}", ""), _reference(slots))
    return f"{why}\nRating: [[{round(2 + 18 * worth) / 2:g}]]"


def compare(slots: Mapping[str, str]) -> str:
    """Which of two answers to the last turn has more merit; a tie where they are close."""
    turn = "_2" if "question_2" in slots else ""
    asked, reference = _asked(slots), _reference(slots)
    (a, why_a), (b, why_b) = (merit(asked, slots[f"answer_{side}{turn}"], reference) for side in "ab")
    verdict = "C" if abs(a - b) < CLOSE else "A" if a > b else "B"
    return f"Assistant A: {why_a} Assistant B: {why_b}\n[[{verdict}]]"


def merit(asked: str, answer: str, reference: str) -> tuple[float, str]:
    """From 0 to 1 what an answer is worth, and why."""
    given = split_sentences(answer)[:MOST_SENTENCES]
    said = frozenset[str]().union(*(s.terms for s in given))
    if not said:
        return 0.0, "The answer says nothing."
    question = parse_sentence(asked)
    on_subject = min(1.0, 2 * len(said & question.terms) / max(1, len(question.terms)))
    new = min(1.0, len(said - question.terms) / ENOUGH_NEW)
    repeated = repetition_rate([term for s in given for term in s.order][:MOST_TERMS])
    broken = 0.0 if given[-1].finished else 0.1
    worth = 0.5 * on_subject + 0.5 * new
    told = f"on the subject {on_subject:.2f}, new {new:.2f}, repeated {repeated:.2f}"
    if points := split_sentences(reference):
        covered = sum(_covered(list(given), point, question) for point in points) / len(points)
        worth = 0.3 * worth + 0.7 * covered
        told += f", of the reference {covered:.2f}"
    return max(0.0, min(1.0, worth - 0.5 * max(0.0, repeated - USUAL_REPETITION) - broken)), f"It is {told}."


def _covered(given: list[Sentence], point: Sentence, question: Sentence) -> float:
    """How much of a sentence of the reference the answer has; one that adds nothing to the question counts whole."""
    if point.terms - question.terms:
        return coverage(given, point, question)
    said = frozenset[str]().union(*(s.terms for s in given))
    return len(said & point.terms) / len(point.terms) if point.terms else 1.0


def _asked(slots: Mapping[str, str]) -> str:
    """The question, or the second one, which is seldom clear without the first, with it."""
    if "question_2" in slots:
        return f"{slots['question_1']} {slots['question_2']}"
    return slots["question"]


def _reference(slots: Mapping[str, str]) -> str:
    return slots.get("ref_answer_2" if "question_2" in slots else "ref_answer_1", "")


CLOSE = 0.05
ENOUGH_NEW = 12  # new terms from which an answer counts as full
MOST_SENTENCES, MOST_TERMS = 300, 1000
USUAL_REPETITION = 0.4  # any longer text uses some words again

RULES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "mt_bench/single-v1": rate,
    "mt_bench/single-math-v1": rate,
    "mt_bench/single-v1-multi-turn": rate,
    "mt_bench/single-math-v1-multi-turn": rate,
    "mt_bench/pair-v2": compare,
    "mt_bench/pair-math-v1": compare,
    "mt_bench/pair-v2-multi-turn": compare,
    "mt_bench/pair-math-v1-multi-turn": compare,
}
