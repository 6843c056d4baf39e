"""Headline metrics, and the two files of a stage's metrics."""

import json
import re
from pathlib import Path

import pytest

from longreward.errors import DataError
from longreward.params import stage_names
from longreward.tasks.stage_metrics import HEADLINE_METRICS, StageReport, headline_metrics, read_report

EVALUATION = {
    "calls": 9883.0,
    "champion": 1.0,
    "dpo/exact/t1": 0.61,
    "dpo/exact/greedy": 0.7412345678,
    "difference/exact/greedy": 0.185,
    "difference/exact/greedy_low": 0.096,
    "difference/exact/greedy_high": 0.285,
    "short/notes/dpo": 0.4,
    "seconds": 236.6,
}


def test_every_stage_has_headline_metrics() -> None:
    assert list(HEADLINE_METRICS) == list(stage_names())


def test_headline_metrics_are_in_order_rounded_and_named_by_stage() -> None:
    metrics = {"calls": 14894.0, "retries": 0.0, "seconds": 29.3, "faithfulness": 5.567386831275713, "reward": 7.25}
    assert headline_metrics("score", metrics) == {
        "score/reward": 7.25,
        "score/faithfulness": 5.56739,
        "score/calls": 14894,
    }
    assert list(headline_metrics("score", metrics)) == ["score/reward", "score/faithfulness", "score/calls"]
    assert headline_metrics("no stage", metrics) == {}


def test_evaluation_is_shown_greedy_else_at_temperature_1() -> None:
    greedy = {"evaluate/dpo/exact/greedy": 0.741235, "evaluate/difference/exact/greedy": 0.185, "evaluate/champion": 1}
    assert headline_metrics("evaluate", EVALUATION) == greedy
    sampled = {name: value for name, value in EVALUATION.items() if "greedy" not in name}
    assert headline_metrics("evaluate", sampled) == {"evaluate/dpo/exact/t1": 0.61, "evaluate/champion": 1}


def test_metrics_file_has_no_ids(workspace: Path) -> None:
    report = StageReport("evaluate", "ab" * 16, "cd" * 16, EVALUATION)
    digest = report.write()
    text = Path("metrics/evaluate.json").read_text()
    assert json.loads(text) == report.headline
    assert not re.search(r"[0-9a-f]{32}", text)
    assert read_report("evaluate") == report
    # Another run with the same metrics has another report.
    assert StageReport("evaluate", "ef" * 16, "cd" * 16, EVALUATION).write() != digest


def test_report_that_cannot_be_read(workspace: Path) -> None:
    assert read_report("score") is None
    Path("reports").mkdir()
    Path("reports/score.json").write_text('{"calls": 3}')
    with pytest.raises(DataError, match=r"reports/score.json is not a stage's report.*--force"):
        read_report("score")
