"""`judge.check.gate` before the score stage: off, warn, require."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import JudgeValidationError
from longreward.params import Params, read_params
from longreward.tasks.stage import StageRun
from longreward.tasks.stage_judge import validate_judge


@dataclass
class Tracked:
    """Records what is logged to the MLflow run."""

    texts: dict[str, str] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)

    def log_text(self, name: str, text: str) -> None:
        self.texts[name] = text

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.measured |= metrics


def stage_run(params: Params, state: Path) -> tuple[StageRun, Tracked]:
    tracked: Any = Tracked()
    return StageRun("score", params, state, tracked, logging.getLogger("judge-gate")), tracked


def settings(gate: str, *more: str) -> Params:
    return read_params(None, [f"judge.check.gate={gate}", "judge.check.quick=true", *more])


async def test_gate_off_makes_no_calls(workspace: Path) -> None:
    run, tracked = stage_run(settings("off"), workspace)
    await validate_judge(run)
    assert not (workspace / "state" / "judge-check").exists()
    assert tracked.texts == {}


async def test_gate_warn_logs_failures(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, tracked = stage_run(settings("warn", "judge.check.margin=0"), workspace)
    with caplog.at_level(logging.INFO, "judge-gate"):
        await validate_judge(run)
    assert "attacks raise a bad answer" in caplog.text
    assert tracked.texts["judge-check.md"].startswith("# offline-lexical-2: did not pass the quick check")
    assert tracked.measured["judge_check/attacks_failed"] > 0
    assert tracked.measured["judge_check/rank/helpfulness"] == 1.0


async def test_gate_require_stops_stage(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, tracked = stage_run(settings("require", "judge.check.margin=0"), workspace)
    with caplog.at_level(logging.INFO, "judge-gate"):
        with pytest.raises(JudgeValidationError, match="attacks raise a bad answer"):
            await validate_judge(run)
        assert tracked.texts["judge-check.md"]
        assert len(list((workspace / "state" / "judge-check").iterdir())) == 1
        enough, _ = stage_run(settings("require", "judge.check.max_failed_probes=16"), workspace)
        await validate_judge(enough)
    assert caplog.text.count("checking the judge") == 1
