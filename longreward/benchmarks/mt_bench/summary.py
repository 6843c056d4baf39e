"""The figures of MT-Bench, as FastChat's `show_result` takes them and with failures counted.

score                         mean of all rows left, 1 to 10
turn_1, turn_2, category/…    of those of one turn or category
pairwise/win_rate             of the pairs (a question and turn): both games won
pairwise/loss_rate            both lost
pairwise/win_rate_adjusted    the same, a tie counting half; a tie is also where the two games disagree
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from longreward.benchmarks.metrics import mean_estimate, verdict_metric
from longreward.benchmarks.mt_bench.data import MtCase
from longreward.benchmarks.types import Answer, CaseValue, IntervalOptions, Metric, Summary, Verdict
from longreward.evaluation.statistics import Observation

Outcome = float | None  # 1 won, 0 lost, 0.5 a tie, None: a game has no verdict


def summarise(
    cases: Mapping[str, MtCase], answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions
) -> Summary:
    """All figures over all verdicts; `cases` by id."""
    single = [verdict for verdict in verdicts if "against" not in verdict.more]
    pairs = [verdict for verdict in verdicts if "against" in verdict.more]
    return Summary(
        "mt_bench",
        (*_single_figures(single, cases, intervals), *_pair_figures(pairs, intervals)),
        tuple(_values(single, cases, answers)),
        tuple(verdict.strict for verdict in single if verdict.strict is not None),
    )


def outcome(first: Outcome, second: Outcome) -> Outcome:
    """What two games come to: a tie where either is one or they disagree, nothing where one has no verdict.

    >>> outcome(1.0, 1.0), outcome(1.0, 0.0), outcome(0.5, 1.0), outcome(1.0, None)
    (1.0, 0.5, 0.5, None)
    """
    if first is None or second is None:
        return None
    return first if first == second else 0.5


def _single_figures(
    verdicts: Sequence[Verdict], cases: Mapping[str, MtCase], intervals: IntervalOptions
) -> Iterable[Metric]:
    if not verdicts:
        return
    yield verdict_metric("score", verdicts, intervals)
    for turn in sorted({int(verdict.more["turn"]) for verdict in verdicts}):
        yield verdict_metric(
            f"turn_{turn}", [verdict for verdict in verdicts if verdict.more["turn"] == turn], intervals
        )
    by_category: dict[str, list[Verdict]] = {case.category: [] for case in cases.values()}
    for verdict in verdicts:
        by_category[cases[verdict.case_id].category].append(verdict)
    for category, own in by_category.items():
        if own:
            yield verdict_metric(f"category/{category}", own, intervals)


def _pair_figures(verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Iterable[Metric]:
    """Of all pairs of games, each once for every time that it was judged."""
    if not verdicts:
        return
    exact = _outcomes(verdicts, lambda verdict: verdict.exact)
    strict = _outcomes(verdicts, lambda verdict: verdict.strict)
    unscored = sum(result is None for _, result in strict)
    for name, points in POINTS.items():
        yield Metric(
            f"pairwise/{name}",
            mean_estimate(_observed(exact, points), intervals, bounds=(0.0, 1.0)),
            mean_estimate(_observed(strict, points), intervals, bounds=(0.0, 1.0)),
            cases=len({verdict.case_id for verdict in verdicts}),
            unscored=unscored,
        )


def _outcomes(verdicts: Sequence[Verdict], read: Callable[[Verdict], Outcome]) -> list[tuple[str, Outcome]]:
    """(case, outcome) of each pair of games."""
    games: dict[tuple[str, int, int], dict[int, Outcome]] = {}
    for verdict in verdicts:
        more = verdict.more
        games.setdefault((verdict.case_id, more["turn"], more.get("again", 0)), {})[more["game"]] = read(verdict)
    return [(case_id, outcome(both.get(1), both.get(2))) for (case_id, _, _), both in games.items()]


def _observed(outcomes: Iterable[tuple[str, Outcome]], points: Callable[[float], float]) -> list[Observation]:
    return [(case_id, points(result)) for case_id, result in outcomes if result is not None]


def _values(verdicts: Sequence[Verdict], cases: Mapping[str, MtCase], answers: Sequence[Answer]) -> Iterable[CaseValue]:
    """The mean of the turns of each case that have a strict rating."""
    tokens = {answer.case_id: max(answer.prompt_tokens, default=0) for answer in answers}
    ratings: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict.strict is not None:
            ratings.setdefault(verdict.case_id, []).append(verdict.strict)
    for case in cases.values():
        if own := ratings.get(case.id):
            yield CaseValue(case.id, case.category, tokens.get(case.id, 0), sum(own) / len(own))


POINTS: Mapping[str, Callable[[float], float]] = {
    "win_rate_adjusted": lambda result: result,
    "win_rate": lambda result: float(result == 1),
    "loss_rate": lambda result: float(result == 0),
}
