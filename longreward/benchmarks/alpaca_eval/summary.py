"""AlpacaEval's metrics: weighted and discrete win rates, and the length-controlled win rate."""

from collections.abc import Mapping, Sequence
from typing import Literal

from longreward.benchmarks.alpaca_eval.data import AlpacaCase
from longreward.benchmarks.alpaca_eval.length_control import (
    AnswerLengths,
    GamedBaselines,
    length_controlled_win_rate,
)
from longreward.benchmarks.metrics import mean_estimate, verdict_metric
from longreward.benchmarks.types import Answer, CaseScore, IntervalOptions, Metric, Summary, Verdict
from longreward.evaluation.statistics import Estimate

SCALE = 100.0
BOUNDS = (0.0, SCALE)
Mode = Literal["exact", "strict"]


def summarize(
    name: str,
    cases: Mapping[str, AlpacaCase],
    gamed: GamedBaselines | None,
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    options: IntervalOptions,
) -> Summary:
    """Return all metrics; the headline is the weighted win rate."""
    answer_by_case = {answer.case_id: answer for answer in answers}
    win_rate = verdict_metric("win_rate", verdicts, options, scale=SCALE, bounds=BOUNDS)
    metrics = [win_rate]
    exact, strict = _length_controlled(cases, gamed, answer_by_case, verdicts, options)
    if exact or strict:
        title = "length_controlled" if gamed is not None else "length_controlled_minimal"
        metrics.append(Metric(title, exact, strict, win_rate.cases, win_rate.unscored))
    metrics.append(
        Metric(
            "discrete_win_rate",
            _discrete_win_rate(verdicts, "exact", options),
            _discrete_win_rate(verdicts, "strict", options),
            win_rate.cases,
            win_rate.unscored,
        )
    )
    length = mean_estimate([(answer.case_id, float(len(answer.turns[0]))) for answer in answers], options)
    metrics.append(Metric("length", length, length, len(answers), unscored=0))
    judged = [verdict for verdict in verdicts if not verdict.metadata["identical"]]
    without = mean_estimate(
        [(verdict.case_id, SCALE * (not verdict.metadata["weighted"])) for verdict in judged], options, bounds=BOUNDS
    )
    metrics.append(Metric("without_probabilities", without, without, len(judged), unscored=0))
    shares = [(verdict.case_id, verdict.strict) for verdict in verdicts if verdict.strict is not None]
    return Summary(
        name,
        tuple(metrics),
        tuple(
            CaseScore(case_id, cases[case_id].category, answer_by_case[case_id].prompt_tokens[0], SCALE * share)
            for case_id, share in shares
        ),
        tuple(1 + share for _, share in shares),
    )


def _length_controlled(
    cases: Mapping[str, AlpacaCase],
    gamed: GamedBaselines | None,
    answers: Mapping[str, Answer],
    verdicts: Sequence[Verdict],
    options: IntervalOptions,
) -> tuple[Estimate | None, Estimate | None]:
    """Return the length-controlled win rate of the exact and of the strict values."""
    ordered = sorted(verdicts, key=lambda verdict: cases[verdict.case_id].index)

    def fit(mode: Mode) -> Estimate | None:
        rows = [
            AnswerLengths(case.index, len(case.output), len(answers[case.id].turns[0]), _share(verdict, mode))
            for verdict in ordered
            for case in [cases[verdict.case_id]]
        ]
        return length_controlled_win_rate(rows, gamed, options)

    exact = fit("exact")
    # The fits take seconds: one is enough if the values are equal.
    return exact, exact if all(verdict.exact == verdict.strict for verdict in verdicts) else fit("strict")


def _discrete_win_rate(verdicts: Sequence[Verdict], mode: Mode, options: IntervalOptions) -> Estimate | None:
    """Return the percentage of wins; a tie counts as half a win."""
    wins = [
        (verdict.case_id, SCALE * (0.5 if share == 0.5 else float(share > 0.5)))
        for verdict in verdicts
        if (share := _share(verdict, mode)) is not None
    ]
    return mean_estimate(wins, options, bounds=BOUNDS)


def _share(verdict: Verdict, mode: Mode) -> float | None:
    return verdict.exact if mode == "exact" else verdict.strict
