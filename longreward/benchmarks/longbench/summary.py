"""Aggregate LongBench's verdicts: cases into sets, sets into classes, classes into one score.

The published score files:

    longbench/preds/<model>.json    [{"idx": 0, "dataset": "qasper", "query": …, "answer": [references],
                                      "prediction": …}, …]
    longbench/scores/<model>.json   [{"scores": {set: {"gpt_score", "finish"}}, "class_scores": …, "avg_gpt_score": …,
                                      "finish": …}, then each row of the predictions with "score" and "gpt_usage"]

Scores are from 0 to 1 in the files and from 0 to 100 in the metrics.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from longreward.benchmarks.longbench.data import CLASSES, SETS, LongBenchCase, SetName
from longreward.benchmarks.longbench.metrics import automatic_metric, metric_name
from longreward.benchmarks.metrics import macro_mean
from longreward.benchmarks.types import Answer, CaseScore, IntervalOptions, Metric, Summary, Verdict
from longreward.evaluation.statistics import Observation

SCALE = 100.0
BOUNDS = (0.0, SCALE)
Scores = Mapping[SetName, list[Observation]]


def summarize(
    name: str,
    cases: Mapping[str, LongBenchCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    options: IntervalOptions,
) -> Summary:
    """Return all metrics of the sets that have answers."""
    sets = [dataset for dataset in SETS if any(cases[answer.case_id].dataset == dataset for answer in answers)]
    exact: dict[SetName, list[Observation]] = {dataset: [] for dataset in sets}
    strict: dict[SetName, list[Observation]] = {dataset: [] for dataset in sets}
    unscored = dict.fromkeys(sets, 0)
    for case_id, group in _by_case(verdicts).items():
        dataset = cases[case_id].dataset
        exact[dataset].append((case_id, SCALE * best_exact(group)))
        unscored[dataset] += sum(verdict.strict is None for verdict in group)
        if (best := best_strict(group)) is not None:
            strict[dataset].append((case_id, SCALE * best))
    # Only sets with answers take part, so that a subset of the sets can be measured.
    prompt_tokens = {answer.case_id: answer.prompt_tokens[0] for answer in answers}
    judged = [
        _judged_metric(title, members, exact, strict, unscored, options) for title, members in _groups(sets).items()
    ]
    return Summary(
        name,
        (*judged, *_automatic_metrics(cases, answers, sets, options)),
        tuple(
            CaseScore(case_id, dataset, prompt_tokens[case_id], score)
            for dataset in sets
            for case_id, score in strict[dataset]
        ),
        tuple(float(verdict.metadata["rating"]) for verdict in verdicts if verdict.strict is not None),
    )


def best_exact(verdicts: Iterable[Verdict]) -> float:
    """Return the best exact value over the references, at least 0: the published code starts from 0."""
    return max([0.0, *(verdict.exact for verdict in verdicts if verdict.exact is not None)])


def best_strict(verdicts: Iterable[Verdict]) -> float | None:
    """Return the best strict value over the references; None if all are unscored."""
    return max((verdict.strict for verdict in verdicts if verdict.strict is not None), default=None)


def class_weights(sets: Sequence[SetName]) -> dict[str, float]:
    """Return the weight of each set in the mean over classes of the mean over their sets.

    >>> class_weights(["qasper", "hotpotqa", "musique"])
    {'qasper': 0.5, 'hotpotqa': 0.25, 'musique': 0.25}
    """
    sizes = {class_name: sum(SETS[name].class_name == class_name for name in sets) for class_name in CLASSES}
    classes = sum(size > 0 for size in sizes.values())
    return {name: 1 / classes / sizes[SETS[name].class_name] for name in sets}


def score_files(
    cases: Mapping[str, LongBenchCase], answers: Sequence[Answer], verdicts: Sequence[Verdict]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the predictions and of the scores, in the order of the cases' files."""
    predictions = {answer.case_id: answer.turns[0] for answer in answers}
    by_case = _by_case(verdicts)
    rows = {
        case.id: {
            "idx": idx,
            "dataset": case.dataset,
            "query": case.query,
            "answer": list(case.answers),
            "prediction": predictions[case.id],
        }
        for idx, case in enumerate(cases.values())
        if case.id in predictions
    }
    scored = [row | _score_fields(by_case[case_id]) for case_id, row in rows.items() if case_id in by_case]
    predicted = list(rows.values())
    return predicted, [_mean_scores(predicted, scored), *scored]


def _by_case(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.case_id].append(verdict)
    return groups


def _groups(sets: Sequence[SetName]) -> dict[str, list[SetName]]:
    """Return the names of the judged metrics with the sets that each one averages."""
    groups = {"score": list(sets)}
    for class_name in CLASSES:
        if members := [name for name in sets if SETS[name].class_name == class_name]:
            groups[f"class/{class_name}"] = members
    return groups | {f"set/{name}": [name] for name in sets}


def _judged_metric(
    title: str,
    sets: Sequence[SetName],
    exact: Scores,
    strict: Scores,
    unscored: Mapping[SetName, int],
    options: IntervalOptions,
) -> Metric:
    weights = class_weights(sets)
    return Metric(
        title,
        macro_mean({name: exact[name] for name in sets}, options, weights=weights, bounds=BOUNDS),
        macro_mean({name: strict[name] for name in sets}, options, weights=weights, bounds=BOUNDS),
        cases=sum(len(exact[name]) for name in sets),
        unscored=sum(unscored[name] for name in sets),
    )


def _automatic_metrics(
    cases: Mapping[str, LongBenchCase], answers: Sequence[Answer], sets: Sequence[SetName], options: IntervalOptions
) -> list[Metric]:
    """Return LongBench's own metric of each set and the mean over the sets."""
    values: dict[SetName, list[Observation]] = {name: [] for name in sets}
    for answer in answers:
        case = cases[answer.case_id]
        value = automatic_metric(SETS[case.dataset], answer.turns[0], case.answers)
        values[case.dataset].append((case.id, SCALE * value))
    titles = {f"set/{name}/{metric_name(SETS[name])}": [name] for name in sets} | {"automatic": list(sets)}
    metrics = []
    for title, members in titles.items():
        estimate = macro_mean({name: values[name] for name in members}, options, bounds=BOUNDS)
        cases_count = sum(len(values[name]) for name in members)
        metrics.append(Metric(title, estimate, estimate, cases=cases_count, unscored=0))
    return metrics


def _score_fields(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    usage = {
        "prompt_tokens": sum(verdict.metadata["prompt_tokens"] for verdict in verdicts),
        "completion_tokens": sum(verdict.metadata["completion_tokens"] for verdict in verdicts),
        "responses": [verdict.judgment for verdict in verdicts],
    }
    return {"score": best_exact(verdicts), "gpt_usage": usage}


def _mean_scores(rows: Sequence[Mapping[str, Any]], scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores: dict[SetName, dict[str, Any]] = {}
    for name in SETS:
        values = [row["score"] for row in scored if row["dataset"] == name]
        if values:  # the published code writes 0 for a set without an answer
            answered = sum(row["dataset"] == name for row in rows)
            scores[name] = {"gpt_score": _mean(values), "finish": len(values) == answered}
    by_class = {
        class_name: [score["gpt_score"] for name, score in scores.items() if SETS[name].class_name == class_name]
        for class_name in CLASSES
    }
    return {
        "scores": scores,
        "class_scores": {class_name: _mean(values) for class_name, values in by_class.items() if values},
        "avg_gpt_score": _mean([score["gpt_score"] for score in scores.values()]),
        "finish": len(scored) == len(rows),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
