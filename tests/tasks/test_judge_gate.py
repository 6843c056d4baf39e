"""`judge.check.gate` before the score stage: off, warn, require."""

import logging
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun

from longreward.builtin.offline_judge.judge import NAME
from longreward.errors import DataError, JudgeValidationError
from longreward.human_labels.items import Label, LabelSet, ReviewItem
from longreward.judge_validation import attacks
from longreward.params import Params, read_params
from longreward.records import Evidence
from longreward.tasks.stage import StageRun
from longreward.tasks.stage_judge import validate_judge


def stage_run(params: Params, state: Path) -> tuple[StageRun, RecordedRun]:
    recorded: Any = RecordedRun()
    return StageRun("score", params, state, recorded, logging.getLogger("judge-gate")), recorded


def settings(gate: str, *overrides: str) -> Params:
    return read_params(None, [f"judge.check.gate={gate}", "judge.check.quick=true", *overrides])


async def test_gate_off_makes_no_calls(workspace: Path) -> None:
    run, recorded = stage_run(settings("off"), workspace)
    await validate_judge(run)
    assert not (workspace / "state" / "judge-check").exists()
    assert recorded.texts == {}


@pytest.fixture
def successful_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the right answer count as an attack on a bad one, since no other raises the offline judge's scores."""
    monkeypatch.setattr(attacks, "IN_RESPONSE", {"right answer": lambda case: case.gold})


@pytest.mark.usefixtures("successful_attack")
async def test_gate_warn_logs_failures(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, recorded = stage_run(settings("warn"), workspace)
    with caplog.at_level(logging.INFO, "judge-gate"):
        await validate_judge(run)
    assert "attacks raise a bad answer" in caplog.text
    assert recorded.texts["judge-check.md"].startswith("# offline-lexical-5: did not pass the quick check")
    assert recorded.metrics["judge_check/successful_attacks"] > 0
    assert recorded.metrics["judge_check/rank/helpfulness"] == 1.0


@pytest.mark.usefixtures("successful_attack")
async def test_gate_require_stops_stage(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, recorded = stage_run(settings("require"), workspace)
    with caplog.at_level(logging.INFO, "judge-gate"):
        with pytest.raises(JudgeValidationError, match="attacks raise a bad answer"):
            await validate_judge(run)
        assert recorded.texts["judge-check.md"]
        assert len(list((workspace / "state" / "judge-check").iterdir())) == 1
        tolerant, _ = stage_run(settings("require", "judge.check.max_successful_attacks=16"), workspace)
        await validate_judge(tolerant)
    assert caplog.text.count("checking the judge") == 1


def write_labels(folder: Path, *, support: float) -> None:
    context = "Keld was founded in 1905 by Ann Lee."
    items = {}
    for number, statement in enumerate(("Ann Lee founded Keld.", "Bo Ray sold Keld in 1700.")):
        items[f"i{number}"] = ReviewItem(
            id=f"i{number}",
            kind="support",
            aspect="faithfulness",
            document_id=f"d{number}",
            context=context,
            query="Who founded Keld?",
            responses=(statement,),
            statement=statement,
            evidence=(Evidence(start=0, end=len(context), text=context),),
        )
    values = (support, 1 - support)
    labels = [Label(item=id, reviewer="anna", value=value) for id, value in zip(items, values, strict=True)]
    LabelSet(items, tuple(labels)).write(folder)


LABEL_SETTINGS = ("judge.check.max_successful_attacks=16", "judge.check.labels=data/labels", "judge.check.min_labels=2")


async def test_labels_agree_with_judge(workspace: Path) -> None:
    write_labels(workspace / "data/labels", support=1.0)
    run, recorded = stage_run(settings("require", *LABEL_SETTINGS), workspace)
    await validate_judge(run)
    assert recorded.metrics["judge_check/kappa/support/faithfulness"] == 1.0
    assert recorded.texts["human-labels.md"].startswith(f"# {NAME}: agreement with human labels")


async def test_labels_disagree_with_judge(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(workspace / "data/labels", support=0.0)
    (workspace / "copy").mkdir()
    monkeypatch.chdir(workspace / "copy")  # a run's private copy need not have the labels
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    run, _ = stage_run(settings("require", *LABEL_SETTINGS), workspace)
    with pytest.raises(JudgeValidationError, match=r"support, faithfulness: the quadratic kappa .* is only -1\.00"):
        await validate_judge(run)


async def test_labels_are_missing(workspace: Path) -> None:
    run, _ = stage_run(settings("warn", *LABEL_SETTINGS), workspace)
    with pytest.raises(DataError, match=r"data/labels/items\.jsonl cannot be read: No such file"):
        await validate_judge(run)
