"""The forecast of a stage, and its metrics when the budget is exceeded."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun

from longreward.errors import BudgetExceeded
from longreward.judge import open_judge
from longreward.params import Params, without_runtime_settings
from longreward.records import Example, Response
from longreward.reward import open_scorer, score_examples
from longreward.tasks.stage import StageRun
from longreward.tasks.stage_judge import evaluation_forecast, forecast_budget, log_judge_metrics, scoring_forecast
from longreward.tasks.state import ledger_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "state"))
    return tmp_path


def stage_run(name: str, folder: Path, **settings: Any) -> StageRun:
    recorded: Any = RecordedRun()
    return StageRun(name, Params.model_validate(settings), folder / "stage", recorded, logging.getLogger("test"))


ITEMS = [
    (
        Example(id=str(n), document_id=str(n), context=f"Town {n}: 19{n}0.", query=f"Since when is town {n}?"),
        [Response(id=f"{n}-0", example_id=str(n), query=f"Since when is town {n}?", text=f"Since 19{n}0.")],
    )
    for n in range(5)
]


async def score(run: StageRun) -> float:
    """Calls made."""
    async with (
        forecast_budget(run, run.params.score.budget, lambda: scoring_forecast(run, ITEMS)) as budget,
        open_judge(run.params.judge, ledger=ledger_file(), budget=budget) as judge,
    ):
        async for _ in score_examples(judge, open_scorer(run.params.score), ITEMS):
            pass
        return judge.metrics()["calls"]


def test_budget_exceeded_logs_metrics_and_next_try_continues(folder: Path) -> None:
    # Six questions a prompt: two ratings, statements and one support, extraction and completeness.
    first = stage_run("score", folder, score={"budget": {"calls": 12}, "prompts_in_flight": 1})
    with pytest.raises(BudgetExceeded, match=r"12 calls.*2 of 5 prompts are complete; the rest needs about 18"):
        asyncio.run(score(first))
    recorded: Any = first.mlflow
    assert recorded.metrics["forecast/calls"] == 30
    assert recorded.metrics["budget/calls"] == 12

    second = stage_run("score", folder, score={"budget": {"calls": 30}})
    assert asyncio.run(score(second)) == 18
    assert second.metrics["forecast/calls"] == 18
    assert second.metrics["budget/calls"] == 30
    assert second.metrics["money"] == 0  # the offline judge is free


def test_evaluation_forecast(folder: Path) -> None:
    prepared = folder / "data/prepared"
    prepared.mkdir(parents=True)
    rows = [{"idx": str(n), "query": f"Since when is town {n}?", "context": f"Town {n}: 19{n}0."} for n in range(4)]
    (prepared / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = stage_run("evaluate", folder, evaluate={"temperatures": [1.0, 0.0], "samples": 3})
    plan = asyncio.run(evaluation_forecast(run))
    assert (plan.stage, plan.prompts, plan.responses) == ("evaluate", 4, 4 * 2 * (3 + 1))


def test_state_folder_ignores_runtime_settings() -> None:
    before = Params().model_dump(mode="json")

    def after(**settings: Any) -> dict[str, dict[str, Any]]:
        return without_runtime_settings(Params.model_validate(settings).model_dump(mode="json"))

    assert after(
        score={"budget": {"money": 3}, "prompts_in_flight": 3}, judge={"max_concurrency": 2}
    ) == without_runtime_settings(before)
    assert after(evaluate={"budget": {"calls": 3}}) == without_runtime_settings(before)
    assert after(score={"evidence_chunks": 3}) != without_runtime_settings(before)
    assert after(judge={"revision": "2"}) != without_runtime_settings(before)


def test_log_judge_metrics(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    figures = {"calls": 104.0, "failed": 1.0, "ledger_hits": 12.0, "requests": 197.0, "retries": 93.0, "timeouts": 78.0}
    figures |= {"disconnects": 14.0, "throttled": 0.0, "unreadable": 3.0, "truncated": 2.0, "concurrency": 6.3}
    run = stage_run("score", folder)
    with caplog.at_level(logging.INFO):
        log_judge_metrics(run, "qwen", figures)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "judge qwen: 103 replies, 12 from the ledger, 197 requests, 93 retries (78 timed out, 14 lost the connection); "
        "3 unreadable and 2 truncated replies. The server cannot do as much at once: lower judge.max_concurrency "
        "(6 were in flight on average), or raise judge.timeout_s"
    )
    assert run.metrics["timeouts"] == 78
    caplog.clear()
    with caplog.at_level(logging.INFO):
        log_judge_metrics(run, "qwen", figures | {"retries": 2.0, "timeouts": 2.0, "disconnects": 0.0})
    assert (caplog.records[0].levelno, "max_concurrency" in caplog.text) == (logging.INFO, False)
