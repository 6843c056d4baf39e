"""`judge.check.gate` before the score stage: off, warn, require."""

import logging
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun

from longreward.errors import JudgeValidationError
from longreward.params import Params, read_params
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


async def test_gate_warn_logs_failures(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, recorded = stage_run(settings("warn", "judge.check.margin=0"), workspace)
    with caplog.at_level(logging.INFO, "judge-gate"):
        await validate_judge(run)
    assert "attacks raise a bad answer" in caplog.text
    assert recorded.texts["judge-check.md"].startswith("# offline-lexical-2: did not pass the quick check")
    assert recorded.metrics["judge_check/successful_attacks"] > 0
    assert recorded.metrics["judge_check/rank/helpfulness"] == 1.0


async def test_gate_require_stops_stage(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, recorded = stage_run(settings("require", "judge.check.margin=0"), workspace)
    with caplog.at_level(logging.INFO, "judge-gate"):
        with pytest.raises(JudgeValidationError, match="attacks raise a bad answer"):
            await validate_judge(run)
        assert recorded.texts["judge-check.md"]
        assert len(list((workspace / "state" / "judge-check").iterdir())) == 1
        tolerant, _ = stage_run(settings("require", "judge.check.max_successful_attacks=16"), workspace)
        await validate_judge(tolerant)
    assert caplog.text.count("checking the judge") == 1
