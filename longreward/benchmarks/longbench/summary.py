"""LongBench's figures: cases into sets, sets into classes, classes into one."""

from collections.abc import Mapping, Sequence

from longreward.benchmarks.estimates import mean_of_means
from longreward.benchmarks.longbench.cases import LongBenchCase
from longreward.benchmarks.longbench.metrics import measure, metric_name
from longreward.benchmarks.longbench.sets import CLASSES, SETS, SetName
from longreward.benchmarks.types import Answer, CaseValue, Figure, Intervals, Summary, Verdict
from longreward.evaluation.statistics import Observation

SCALE = 100.0
BOUNDS = (0.0, SCALE)
Graded = Mapping[SetName, list[Observation]]


def summarise(
    name: str,
    cases: Mapping[str, LongBenchCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    intervals: Intervals,
) -> Summary:
    """All figures of the sets that have answers: the headline, classes, sets, and the metrics without a judge."""
    by_case: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_case.setdefault(verdict.case_id, []).append(verdict)
    sets = [each for each in SETS if any(cases[answer.case_id].dataset == each for answer in answers)]
    exact: dict[SetName, list[Observation]] = {each: [] for each in sets}
    strict: dict[SetName, list[Observation]] = {each: [] for each in sets}
    unscored = dict.fromkeys(sets, 0)
    for case, given in by_case.items():
        dataset = cases[case].dataset
        exact[dataset].append((case, SCALE * best_exact(given)))
        unscored[dataset] += sum(verdict.strict is None for verdict in given)
        if (value := best_strict(given)) is not None:
            strict[dataset].append((case, SCALE * value))
    lengths = {answer.case_id: answer.prompt_tokens[0] for answer in answers}
    figures = [_figure(title, chosen, exact, strict, unscored, intervals) for title, chosen in _groups(sets)]
    return Summary(
        name,
        (*figures, *_automatic(cases, answers, sets, intervals)),
        tuple(CaseValue(case, each, lengths[case], value) for each in sets for case, value in strict[each]),
        tuple(float(verdict.more["rating"]) for verdict in verdicts if verdict.strict is not None),
    )


def best_exact(verdicts: Sequence[Verdict]) -> float:
    """The best over the references, and never below 0, as the published code begins with it."""
    return max([0.0, *(each.exact for each in verdicts if each.exact is not None)])


def best_strict(verdicts: Sequence[Verdict]) -> float | None:
    """The best over the references whose verdict can be read; None where there is none."""
    return max((each.strict for each in verdicts if each.strict is not None), default=None)


def class_weights(sets: Sequence[SetName]) -> dict[str, float]:
    """Of each set in the mean over classes of the mean over their sets; classes without a set are left out.

    >>> class_weights(["qasper", "hotpotqa", "musique"])
    {'qasper': 0.5, 'hotpotqa': 0.25, 'musique': 0.25}
    """
    sizes = {group: sum(SETS[each].group == group for each in sets) for group in CLASSES}
    classes = sum(size > 0 for size in sizes.values())
    return {each: 1 / classes / sizes[SETS[each].group] for each in sets}


def _groups(sets: Sequence[SetName]) -> list[tuple[str, list[SetName]]]:
    """The titles of the judged figures, each with the sets that it is made of."""
    classes = [(group, [each for each in sets if SETS[each].group == group]) for group in CLASSES]
    return [
        ("score", list(sets)),
        *((f"class/{group}", chosen) for group, chosen in classes if chosen),
        *((f"set/{each}", [each]) for each in sets),
    ]


def _figure(
    title: str,
    sets: Sequence[SetName],
    exact: Graded,
    strict: Graded,
    unscored: Mapping[SetName, int],
    intervals: Intervals,
) -> Figure:
    weights = class_weights(sets)
    return Figure(
        title,
        mean_of_means({each: exact[each] for each in sets}, intervals, weights=weights, bounds=BOUNDS),
        mean_of_means({each: strict[each] for each in sets}, intervals, weights=weights, bounds=BOUNDS),
        cases=sum(len(exact[each]) for each in sets),
        unscored=sum(unscored[each] for each in sets),
    )


def _automatic(
    cases: Mapping[str, LongBenchCase], answers: Sequence[Answer], sets: Sequence[SetName], intervals: Intervals
) -> list[Figure]:
    """LongBench's own metric of each set, and the mean over the sets."""
    taken: dict[SetName, list[Observation]] = {each: [] for each in sets}
    for answer in answers:
        case = cases[answer.case_id]
        value = measure(SETS[case.dataset], answer.turns[0], case.answers)
        taken[case.dataset].append((case.id, SCALE * value))
    titles = {f"set/{each}/{metric_name(SETS[each])}": [each] for each in sets} | {"automatic": list(sets)}
    found = []
    for title, chosen in titles.items():
        mean = mean_of_means({each: taken[each] for each in chosen}, intervals, bounds=BOUNDS)
        found.append(Figure(title, mean, mean, cases=sum(len(taken[each]) for each in chosen), unscored=0))
    return found
