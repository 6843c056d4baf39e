"""The offline judge's rules for LongBench-Chat and LongBench: an answer is held against the reference by shared terms.

Two shares decide: how much of the reference the answer covers, and how much of the answer the reference bears out. The
scored example answers are not looked at.
"""

from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.lexical import Sentence, parse_sentence, split_sentences
from longreward.builtin.offline_judge.overlap import clauses, coverage, evidence_clauses, support_level


def longbench_chat(slots: Mapping[str, str]) -> str:
    """1 to 10: what is covered counts, and half of it only where nothing of the answer is borne out."""
    covered, borne_out = _shares(slots)
    return _verdict(covered, borne_out, 1 + round(9 * covered * (0.5 + 0.5 * borne_out)))


def longbench_qa(slots: Mapping[str, str]) -> str:
    """3 where the answer covers nearly all of the reference, 2 where it covers a good part, else 1."""
    covered, borne_out = _shares(slots)
    return _verdict(covered, borne_out, 3 if covered >= _ALL else 2 if covered >= _PART else 1)


def longbench_summary(slots: Mapping[str, str]) -> str:
    """1 to 5, as an answer of LongBench-Chat is rated."""
    covered, borne_out = _shares(slots)
    return _verdict(covered, borne_out, 1 + round(4 * covered * (0.5 + 0.5 * borne_out)))


RULES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "longbench_chat": longbench_chat,
    "longbench/qa": longbench_qa,
    "longbench/summary": longbench_summary,
}
_ALL, _PART = 0.8, 0.3
_LONGEST = 300  # sentences of an answer that count: all, but for one without end


def _shares(slots: Mapping[str, str]) -> tuple[float, float]:
    """The share of the reference that the answer covers, and of the answer's sentences that the reference bears out."""
    question = parse_sentence(slots.get("question", ""))
    given, wanted = split_sentences(slots["answer"])[:_LONGEST], split_sentences(slots["reference"])
    if not given or not wanted:
        return 0.0, 0.0
    parts = [part for each in given for part in {each, *clauses(each)}]
    evidence = evidence_clauses(slots["reference"])
    covered = sum(_covered(parts, point, question) for point in wanted) / len(wanted)
    return covered, sum(support_level(each, evidence)[0] for each in given) / len(given)


def _covered(given: list[Sentence], point: Sentence, question: Sentence) -> float:
    """How much of the point is in the answer; a point that adds no term to the question ("Yes.") must stand in it."""
    if point.terms - question.terms:
        return coverage(given, point, question)
    said = point.text.strip(" .!?。！？").casefold()
    return float(any(said in each.text.casefold() for each in given))


def _verdict(covered: float, borne_out: float, rating: int) -> str:
    return f"Covered: {covered:.2f} of the reference; borne out by it: {borne_out:.2f} of the answer.\n[[{rating}]]"
