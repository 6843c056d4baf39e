"""LongBench's figures: cases into sets, sets into classes, classes into one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.benchmarks.longbench.data import CLASSES, SETS, LongBenchCase, SetName
from longreward.benchmarks.longbench.metrics import measure, metric_name
from longreward.benchmarks.metrics import macro_mean
from longreward.benchmarks.types import Answer, CaseValue, IntervalOptions, Metric, Summary, Verdict
from longreward.evaluation.statistics import Observation
from longreward.utils.jsonl import open_atomic

SCALE = 100.0
BOUNDS = (0.0, SCALE)
Graded = Mapping[SetName, list[Observation]]


def summarise(
    name: str,
    cases: Mapping[str, LongBenchCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    intervals: IntervalOptions,
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
    intervals: IntervalOptions,
) -> Metric:
    weights = class_weights(sets)
    return Metric(
        title,
        macro_mean({each: exact[each] for each in sets}, intervals, weights=weights, bounds=BOUNDS),
        macro_mean({each: strict[each] for each in sets}, intervals, weights=weights, bounds=BOUNDS),
        cases=sum(len(exact[each]) for each in sets),
        unscored=sum(unscored[each] for each in sets),
    )


def _automatic(
    cases: Mapping[str, LongBenchCase], answers: Sequence[Answer], sets: Sequence[SetName], intervals: IntervalOptions
) -> list[Metric]:
    """LongBench's own metric of each set, and the mean over the sets."""
    taken: dict[SetName, list[Observation]] = {each: [] for each in sets}
    for answer in answers:
        case = cases[answer.case_id]
        value = measure(SETS[case.dataset], answer.turns[0], case.answers)
        taken[case.dataset].append((case.id, SCALE * value))
    titles = {f"set/{each}/{metric_name(SETS[each])}": [each] for each in sets} | {"automatic": list(sets)}
    found = []
    for title, chosen in titles.items():
        mean = macro_mean({each: taken[each] for each in chosen}, intervals, bounds=BOUNDS)
        found.append(Metric(title, mean, mean, cases=sum(len(taken[each]) for each in chosen), unscored=0))
    return found


# The files that LongReward's evaluation on LongBench leaves: the answers, and the scores with their means.
#
#     longbench/preds/<model>.json    [{"idx": 0, "dataset": "qasper", "query": …, "answer": [references],
#                                       "prediction": …}, …]
#     longbench/scores/<model>.json   [{"scores": {set: {"gpt_score", "finish"}}, "class_scores": …, "avg_gpt_score": …,
#                                       …}, then each row of the answers with its "score" and "gpt_usage"]
#
# Scores are from 0 to 1 there. The published code writes 0 for a set without an answer; we leave such a set out.


def write(
    folder: Path,
    cases: Mapping[str, LongBenchCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    *,
    model: str,
) -> None:
    """Both files below `folder`, in the order of the cases' files; StateError where the disk refuses."""
    folder, file = folder / "longbench", model.rstrip("/").split("/")[-1]
    said = {answer.case_id: answer.turns[0] for answer in answers}
    by_case: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_case.setdefault(verdict.case_id, []).append(verdict)
    rows = {
        case.id: {
            "idx": idx,
            "dataset": case.dataset,
            "query": case.query,
            "answer": list(case.answers),
            "prediction": said[case.id],
        }
        for idx, case in enumerate(cases.values())
        if case.id in said
    }
    scored = [row | _score(by_case[case]) for case, row in rows.items() if case in by_case]
    _write(folder / "preds" / f"{file}.json", list(rows.values()))
    _write(folder / "scores" / f"{file}.json", [_means(list(rows.values()), scored), *scored])


def _score(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    usage = {
        "prompt_tokens": sum(each.more["prompt_tokens"] for each in verdicts),
        "completion_tokens": sum(each.more["completion_tokens"] for each in verdicts),
        "responses": [each.judgment for each in verdicts],
    }
    return {"score": best_exact(verdicts), "gpt_usage": usage}


def _means(rows: Sequence[Mapping[str, Any]], scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores: dict[SetName, dict[str, Any]] = {}
    for name in SETS:
        found = [row["score"] for row in scored if row["dataset"] == name]
        asked = sum(row["dataset"] == name for row in rows)
        if found:
            scores[name] = {"gpt_score": _mean(found), "finish": len(found) == asked}
    groups = {
        group: [score["gpt_score"] for name, score in scores.items() if SETS[name].group == group] for group in CLASSES
    }
    return {
        "scores": scores,
        "class_scores": {group: _mean(found) for group, found in groups.items() if found},
        "avg_gpt_score": _mean([each["gpt_score"] for each in scores.values()]),
        "finish": len(scored) == len(rows),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open_atomic(path) as out:
        json.dump(rows, out, indent=2, ensure_ascii=False)
