"""AlpacaEval's figures: win rates, weighted and by counting, raw and under equal lengths."""

from collections.abc import Mapping, Sequence
from typing import Literal

from longreward.benchmarks.alpaca_eval.cases import AlpacaCase
from longreward.benchmarks.alpaca_eval.length_control import Gamed, Measured, length_controlled
from longreward.benchmarks.estimates import estimate, figure
from longreward.benchmarks.types import Answer, CaseValue, Figure, Intervals, Summary, Verdict
from longreward.evaluation.statistics import Estimate

SCALE = 100.0
BOUNDS = (0.0, SCALE)
Mode = Literal["exact", "strict"]


def summarise(
    name: str,
    cases: Mapping[str, AlpacaCase],
    gamed: Gamed | None,
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    intervals: Intervals,
) -> Summary:
    """The headline is the win rate; `length_controlled` (or `…_minimal`) stands beside it where it can be fitted."""
    said = {answer.case_id: answer for answer in answers}
    whole = figure("win_rate", verdicts, intervals, scale=SCALE, bounds=BOUNDS)
    unscored = whole.unscored
    figures = [whole]
    modes: tuple[Mode, Mode] = ("exact", "strict")
    fits = _controlled(cases, gamed, said, verdicts, intervals)
    if any(fits):
        title = "length_controlled" if gamed is not None else "length_controlled_minimal"
        figures.append(Figure(title, fits[0], fits[1], cases=whole.cases, unscored=unscored))
    counted = [
        estimate(
            [(v.case_id, SCALE * _discrete(share)) for v in verdicts if (share := _share(v, m)) is not None],
            intervals,
            bounds=BOUNDS,
        )
        for m in modes
    ]
    figures.append(Figure("discrete_win_rate", counted[0], counted[1], cases=whole.cases, unscored=unscored))
    length = estimate([(answer.case_id, float(len(answer.turns[0]))) for answer in answers], intervals)
    figures.append(Figure("length", length, length, cases=len(answers), unscored=0))
    bare = [v for v in verdicts if not v.more["identical"]]
    without = estimate([(v.case_id, SCALE * (not v.more["weighed"])) for v in bare], intervals, bounds=BOUNDS)
    figures.append(Figure("without_probabilities", without, without, cases=len(bare), unscored=0))
    scored = [(verdict, verdict.strict) for verdict in verdicts if verdict.strict is not None]
    return Summary(
        name,
        tuple(figures),
        tuple(
            CaseValue(v.case_id, cases[v.case_id].category, said[v.case_id].prompt_tokens[0], SCALE * share)
            for v, share in scored
        ),
        tuple(1 + share for _, share in scored),
    )


def _controlled(
    cases: Mapping[str, AlpacaCase],
    gamed: Gamed | None,
    said: Mapping[str, Answer],
    verdicts: Sequence[Verdict],
    intervals: Intervals,
) -> tuple[Estimate | None, Estimate | None]:
    """The length-controlled rate under both readings, which are one fit where the readings are equal."""
    ordered = sorted(verdicts, key=lambda verdict: cases[verdict.case_id].index)

    def of(mode: Mode) -> Estimate | None:
        measured = [
            Measured(case.index, len(case.output), len(said[case.id].turns[0]), _share(verdict, mode))
            for verdict in ordered
            for case in [cases[verdict.case_id]]
        ]
        return length_controlled(measured, gamed, intervals)

    exact = of("exact")
    return exact, exact if all(each.exact == each.strict for each in verdicts) else of("strict")


def _share(verdict: Verdict, mode: Mode) -> float | None:
    return verdict.exact if mode == "exact" else verdict.strict


def _discrete(share: float) -> float:
    """A win, a loss, or half of each.

    >>> _discrete(0.51), _discrete(0.5), _discrete(0.2)
    (1.0, 0.5, 0.0)
    """
    return 0.5 if share == 0.5 else float(share > 0.5)
