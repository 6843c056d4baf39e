"""The summary at the end of a run."""

import json
from pathlib import Path

import pytest

from longreward.tasks.pipeline_tasks import StageResult
from longreward.tasks.run_report import print_summary


def row(comparison: str, measure: str, sft: float, dpo: float) -> dict[str, object]:
    change = {"value": dpo - sft, "low": dpo - sft - 0.05, "high": dpo - sft + 0.05}
    estimates = {"first": {"value": sft}, "second": {"value": dpo}, "difference": change}
    return {"comparison": comparison, "measure": measure, **estimates}


@pytest.fixture
def comparison(workspace: Path) -> Path:
    rows = [row("t1", "recall", 0.395, 0.896), row("t1", "logicality", 8, 9), row("t1", "tokens", 23.04, 21.5)]
    file = workspace / "table.json"
    file.write_text(json.dumps({"rows": rows, "sentence": "Learning is shown."}))
    return file


def test_print_summary(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(
        [StageResult("train", ran=True, seconds=27.04), StageResult("evaluate", ran=False, seconds=0.4)],
        seconds=30.0,
        table=comparison,
        width=80,
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["t1"] in lines
    assert ["recall", "0.395", "0.896", "+0.501", "[+0.451,", "+0.551]"] in lines
    assert ["tokens", "23.0", "21.5", "-1.5", "[-1.6,", "-1.5]"] in lines
    assert not any("logicality" in line for line in lines)  # the report has it
    assert ["Learning", "is", "shown."] in lines
    assert ["train", "27.0"] in lines
    assert ["evaluate", "0.4", "was", "up", "to", "date"] in lines
    assert ["all", "30.0"] in lines
    store = f"sqlite:///{comparison.parent}/state/mlflow.db"
    assert any(line[-3:] == ["ui", "--backend-store-uri", store] for line in lines)


@pytest.mark.parametrize("width", [20, 60, 100])
def test_summary_is_not_truncated(workspace: Path, capsys: pytest.CaptureFixture[str], width: int) -> None:
    change = {"value": -10.123, "low": -11.25, "high": -10.75, "p_corrected": 0.0001}
    values = {"first": {"value": 10.0}, "second": {"value": 0.123}, "difference": change}
    rows = [{"comparison": "t1 against t0.5", "measure": "unsupported", **values}]
    table = workspace / "table.json"
    table.write_text(json.dumps({"rows": rows, "sentence": "Learning is shown: " + "the model is better. " * 9}))
    print_summary([StageResult("evaluate", ran=True, seconds=27.04)], seconds=30.0, table=table, width=width)
    output = capsys.readouterr().out
    assert "…" not in output
    assert "t1 against t0.5" in output
    cells = ["unsupported", "10.000", "0.123", "-10.123", "[-11.250,", "-10.750]", "<0.001"]
    assert cells in [line.split() for line in output.splitlines()]
    # Commands and paths stay in one line, to be copied.
    shown = [line for line in output.splitlines() if not line.startswith(("MLflow alone:", "Every measure"))]
    assert max(len(line.rstrip()) for line in shown) <= max(62, width)  # the widest row of this table


def test_print_summary_without_evaluate(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([StageResult("score", ran=True, seconds=1.0)], seconds=1.0, table=comparison)
    output = capsys.readouterr().out
    assert "recall" not in output
    assert "prompts, verdicts and evidence: longreward view\n" in output


def test_print_summary_without_evidence_page_or_earlier_run(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary([StageResult("prepare", ran=True, seconds=1.0)], seconds=1.0, view=None)
    output = capsys.readouterr().out
    assert "longreward view" not in output
    assert "longreward compare" not in output
    print_summary([StageResult("prepare", ran=True, seconds=1.0)], seconds=1.0, comparable=True)
    assert "against the run before: longreward compare last~1 last\n" in capsys.readouterr().out
