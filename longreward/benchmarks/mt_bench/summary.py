"""MT-Bench's metrics, as in FastChat's `show_result`, with unscored verdicts counted.

score                         mean of all ratings, 1 to 10
turn_1, turn_2, category/…    mean of the ratings of one turn or category
pairwise/win_rate             share of the pairs (a turn of a question) that are won in both orders
pairwise/loss_rate            share that are lost in both orders
pairwise/win_rate_adjusted    win rate with ties counting half; a pair with different winners in both orders is a tie
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from longreward.benchmarks.metrics import mean_estimate, verdict_metric
from longreward.benchmarks.mt_bench.data import MtCase
from longreward.benchmarks.types import Answer, CaseScore, IntervalOptions, Metric, Summary, Verdict
from longreward.evaluation.statistics import Estimate

Outcome = float | None  # 1: won, 0: lost, 0.5: tie, None: one of the two comparisons has no winner
POINTS: Mapping[str, Callable[[float], float]] = {
    "win_rate_adjusted": lambda outcome: outcome,
    "win_rate": lambda outcome: float(outcome == 1),
    "loss_rate": lambda outcome: float(outcome == 0),
}


def summarize(
    cases: Mapping[str, MtCase], answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions
) -> Summary:
    """Return all metrics; `cases` by id."""
    ratings = [verdict for verdict in verdicts if "opponent" not in verdict.metadata]
    pairs = [verdict for verdict in verdicts if "opponent" in verdict.metadata]
    return Summary(
        "mt_bench",
        (*_rating_metrics(ratings, cases, options), *_pair_metrics(pairs, options)),
        tuple(_case_scores(ratings, cases, answers)),
        tuple(verdict.strict for verdict in ratings if verdict.strict is not None),
    )


def pair_outcome(first: Outcome, second: Outcome) -> Outcome:
    """Combine both orders: a tie if either is a tie or they disagree, None if either has no winner.

    >>> pair_outcome(1.0, 1.0), pair_outcome(1.0, 0.0), pair_outcome(0.5, 1.0), pair_outcome(1.0, None)
    (1.0, 0.5, 0.5, None)
    """
    if first is None or second is None:
        return None
    return first if first == second else 0.5


def _rating_metrics(
    verdicts: Sequence[Verdict], cases: Mapping[str, MtCase], options: IntervalOptions
) -> Iterable[Metric]:
    if not verdicts:
        return
    yield verdict_metric("score", verdicts, options)
    for turn in sorted({int(verdict.metadata["turn"]) for verdict in verdicts}):
        of_turn = [verdict for verdict in verdicts if verdict.metadata["turn"] == turn]
        yield verdict_metric(f"turn_{turn}", of_turn, options)
    by_category: dict[str, list[Verdict]] = {case.category: [] for case in cases.values()}
    for verdict in verdicts:
        by_category[cases[verdict.case_id].category].append(verdict)
    for category, of_category in by_category.items():
        if of_category:
            yield verdict_metric(f"category/{category}", of_category, options)


def _pair_metrics(verdicts: Sequence[Verdict], options: IntervalOptions) -> Iterable[Metric]:
    if not verdicts:
        return
    exact = _outcomes(verdicts, lambda verdict: verdict.exact)
    strict = _outcomes(verdicts, lambda verdict: verdict.strict)

    def estimate(outcomes: list[tuple[str, Outcome]], points: Callable[[float], float]) -> Estimate | None:
        values = [(case_id, points(outcome)) for case_id, outcome in outcomes if outcome is not None]
        return mean_estimate(values, options, bounds=(0.0, 1.0))

    for name, points in POINTS.items():
        yield Metric(
            f"pairwise/{name}",
            estimate(exact, points),
            estimate(strict, points),
            cases=len({verdict.case_id for verdict in verdicts}),
            unscored=sum(outcome is None for _, outcome in strict),
        )


def _outcomes(verdicts: Sequence[Verdict], value: Callable[[Verdict], Outcome]) -> list[tuple[str, Outcome]]:
    """Return (case id, outcome) of each pair; a pair that was judged again is a pair of its own."""
    pairs: dict[tuple[str, int, int], dict[int, Outcome]] = {}
    for verdict in verdicts:
        metadata = verdict.metadata
        key = (verdict.case_id, metadata["turn"], metadata.get("repeat", 0))
        pairs.setdefault(key, {})[metadata["order"]] = value(verdict)
    return [(case_id, pair_outcome(both.get(1), both.get(2))) for (case_id, _, _), both in pairs.items()]


def _case_scores(
    verdicts: Sequence[Verdict], cases: Mapping[str, MtCase], answers: Sequence[Answer]
) -> Iterable[CaseScore]:
    """Yield the mean over the turns with a strict rating of each case."""
    prompt_tokens = {answer.case_id: max(answer.prompt_tokens, default=0) for answer in answers}
    ratings: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict.strict is not None:
            ratings.setdefault(verdict.case_id, []).append(verdict.strict)
    for case in cases.values():
        if turns := ratings.get(case.id):
            yield CaseScore(case.id, case.category, prompt_tokens.get(case.id, 0), sum(turns) / len(turns))
