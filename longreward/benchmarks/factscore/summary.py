"""FactScore's figures: the mean over answers of the share of their facts that is supported, and facts an answer."""

from collections.abc import Mapping, Sequence

from longreward.benchmarks.estimates import estimate
from longreward.benchmarks.factscore.cases import FactCase
from longreward.benchmarks.types import Answer, CaseValue, Figure, Intervals, Summary, Verdict

SCALE = 100.0
BOUNDS = (0.0, SCALE)


def summarise(
    name: str,
    cases: Mapping[str, FactCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    intervals: Intervals,
) -> Summary:
    """An answer without a fact counts in `respond_ratio` alone, as published."""
    facts: dict[str, list[Verdict]] = {answer.case_id: [] for answer in answers}
    for verdict in verdicts:
        if verdict.more["fact"] is not None:
            facts[verdict.case_id].append(verdict)
    exact = {case: _share([each.exact for each in given]) for case, given in facts.items()}
    strict = {case: _share([each.strict for each in given]) for case, given in facts.items()}
    unscored = sum(verdict.strict is None for verdict in verdicts)
    counts = estimate([(case, float(len(given))) for case, given in facts.items() if given], intervals)
    responding = estimate([(case, SCALE * bool(given)) for case, given in facts.items()], intervals, bounds=BOUNDS)
    with_facts = sum(bool(given) for given in facts.values())
    return Summary(
        name,
        (
            Figure(
                "score",
                estimate(
                    [(case, share) for case, share in exact.items() if share is not None], intervals, bounds=BOUNDS
                ),
                estimate(
                    [(case, share) for case, share in strict.items() if share is not None], intervals, bounds=BOUNDS
                ),
                cases=with_facts,
                unscored=unscored,
            ),
            Figure("facts", counts, counts, cases=with_facts, unscored=0),
            Figure("respond_ratio", responding, responding, cases=len(answers), unscored=0),
        ),
        tuple(
            CaseValue(answer.case_id, cases[answer.case_id].category, answer.prompt_tokens[0], share)
            for answer in answers
            if (share := strict[answer.case_id]) is not None
        ),
        tuple(verdict.strict for verdict in verdicts if verdict.strict is not None),
    )


def _share(supported: Sequence[float | None]) -> float | None:
    """The percentage of those that were read; None where none was."""
    known = [each for each in supported if each is not None]
    return SCALE * sum(known) / len(known) if known else None
