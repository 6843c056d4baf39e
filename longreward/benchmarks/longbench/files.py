"""The files that LongReward's evaluation on LongBench leaves: the answers, and the scores with their means.

    longbench/preds/<model>.json    [{"idx": 0, "dataset": "qasper", "query": …, "answer": [references],
                                      "prediction": …}, …]
    longbench/scores/<model>.json   [{"scores": {set: {"gpt_score", "finish"}}, "class_scores": …, "avg_gpt_score": …,
                                      …}, then each row of the answers with its "score" and "gpt_usage"]

Scores are from 0 to 1 there. The published code writes 0 for a set without an answer; we leave such a set out.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.benchmarks.longbench.cases import LongBenchCase
from longreward.benchmarks.longbench.sets import CLASSES, SETS, SetName
from longreward.benchmarks.longbench.summary import best_exact
from longreward.benchmarks.types import Answer, Verdict
from longreward.utils.jsonl import open_atomic


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
