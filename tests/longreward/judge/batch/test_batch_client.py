"""Scoring in batches against an HTTP server with files and batches gives the same results as live calls."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_server import Line, Provider, output_line, provider

from longreward.errors import BatchPending, BudgetExceeded, ConfigError, JudgeRefused, StateError
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge.providers import PROVIDERS
from longreward.judge.server_probe import probe
from longreward.params import read_params
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, open_scorer, score_examples

CONFIG = ScoreConfig(evidence_chunk_tokens=12, evidence_chunks=2, extraction_chunk_tokens=24, prompts_in_flight=1)
FAST = {"settle_s": 0.15, "poll_s": 0.02}
EXAMPLES = [
    (
        Example(
            id=str(n),
            document_id=str(n),
            context=f"Keld {n} was founded by Ann Lee in 190{n}. The mill burned down. Bo Ek owned the inn of Osten.",
            query=f"Who founded Keld {n}, and when?",
        ),
        [
            Response(id=f"{n}-{k}", example_id=str(n), query=f"Who founded Keld {n}, and when?", text=text)
            for k, text in enumerate(
                [f"Ann Lee founded Keld {n} in 190{n}.", "Bo Ek founded it. The mill burned down."]
            )
        ],
    )
    for n in range(3)
]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def settings(url: str, mode: str = "batch", batch: dict[str, Any] | None = None, **more: Any) -> JudgeConfig:
    return JudgeConfig(kind="http", base_url=url, model="m", mode=mode, batch=FAST | (batch or {}), **more)


async def score(config: JudgeConfig, ledger: Path) -> tuple[list[ScoredExample], dict[str, float]]:
    async with open_judge(config, ledger=ledger) as judge:
        return [example async for example in score_examples(judge, open_scorer(CONFIG), EXAMPLES)], judge.metrics()


def exchanges(ledger: Path) -> list[tuple[Any, ...]]:
    columns = (
        "question, attempt, temperature, template, prompt_hash, judge, revision, text, finish_reason, outcome, reason"
    )
    with sqlite3.connect(ledger) as connection:
        return sorted(connection.execute(f"SELECT {columns} FROM exchanges"), key=str)


def remaining_batches(ledger: Path) -> list[Path]:
    return sorted(ledger.with_name(f"{ledger.stem}.batches").glob("*/*/batch.json"))


async def test_batches_give_same_exchanges_as_live_calls(tmp_path: Path) -> None:
    with provider() as server:
        live, _ = await score(settings(server.url, "live"), tmp_path / "live.sqlite")
        live_requests, server.live = server.live, []
        scored, figures = await score(settings(server.url), tmp_path / "batch.sqlite")
        again, after = await score(settings(server.url, "live"), tmp_path / "batch.sqlite")
    assert scored == live == again
    assert exchanges(tmp_path / "batch.sqlite") == exchanges(tmp_path / "live.sqlite")
    assert (figures["calls"], after["calls"], server.live) == (len(live_requests), 0, [])
    first, second = server.submitted
    assert {len(first), len(second)} == {len(first), len(live_requests) - len(first)}
    # Only live requests have stop sequences, as a refused field would end a batch.
    assert all(body.pop("stop") for body in live_requests)
    assert [json.dumps(line["body"], sort_keys=True) for line in sorted(first + second, key=_text)] == [
        json.dumps(body, sort_keys=True) for body in sorted(live_requests, key=lambda body: str(body["messages"]))
    ]
    assert {(line["method"], line["url"]) for line in first} == {("POST", "/v1/chat/completions")}
    assert len({line["custom_id"] for line in first + second}) == len(live_requests)
    assert remaining_batches(tmp_path / "batch.sqlite") == []


async def test_requests_contain_fields_of_settings(tmp_path: Path) -> None:
    more = {"system": "Be strict.", "thinking_tokens": 100, "extra_body": {"top_p": 0.5, "temperature": None}}
    with provider() as server:
        await score(settings(server.url, length_field="max_completion_tokens", **more), tmp_path / "l.sqlite")
    body = server.submitted[0][0]["body"]
    assert body["messages"][0] == {"role": "system", "content": "Be strict."}
    assert (body["top_p"], "temperature" in body, body["max_completion_tokens"] > 600) == (0.5, False, True)


async def test_files_limited_in_requests_and_bytes(tmp_path: Path) -> None:
    with provider() as server:
        await score(settings(server.url, batch={"requests_per_file": 10}), tmp_path / "n.sqlite")
        by_number = [len(batch) for batch in server.submitted]
        server.submitted.clear()
        await score(settings(server.url, batch={"megabytes_per_file": 0.02}), tmp_path / "s.sqlite")
        sizes = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()][
            -len(server.submitted) :
        ]
    assert max(by_number) == 10
    assert sum(by_number) == len(server.requests())
    assert max(sizes) <= 20_000 < sum(sizes)


async def test_failed_requests_go_into_further_rounds_and_refused_ones_do_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def unrated() -> dict[str, Any]:
        # The order of requests varies, and any text is a readable extraction.
        bodies = [request["body"] for request in server.submitted[0][5:]]
        return next(body for body in bodies if "Rating: [[" in body["messages"][0]["content"])

    def edit_result(number: int, line: Line) -> Line | str | None:
        index = [request["custom_id"] for request in server.submitted[number]].index(line["custom_id"])
        if number == 0 and index == 0:
            return None  # neither in the output nor among the errors
        if number == 0 and index in (1, 2):
            status = (429, 503)[index - 1]
            return line | {"response": {"status_code": status, "body": {"error": {"message": "busy"}}}}
        if number == 0 and index == 3:
            return json.dumps(line)[:-40]  # cut off
        if number == 0 and index == 4:
            refused.append(line["custom_id"])
            error = {"error": {"code": "content_filter", "message": "no"}}
            return line | {"response": {"status_code": 400, "body": error}}
        body = body_of(server, number, line)
        if body["messages"][0] == unrated()["messages"][0] and body["temperature"] != 0.95:  # and after the reminder
            line["response"]["body"]["choices"][0]["message"]["content"] = "I would rather not rate."
        return line

    with provider(edit_result=edit_result) as server:
        _, figures = await score(settings(server.url, batch={"settle_s": 0.5}), tmp_path / "l.sqlite")
    ids = [line["custom_id"] for line in server.requests()]
    first = [line["custom_id"] for line in server.submitted[0]]
    assert [ids.count(request_id) for request_id in first[:6]] == [2, 2, 2, 2, 1, 1]
    assert {line["custom_id"] for batch in server.submitted[1:] for line in batch} > set(first[:4])
    hot = [line["body"] for line in server.requests() if line["body"]["temperature"] == 0.95]
    assert unrated()["messages"] in [body["messages"] for body in hot]
    stored = exchanges(tmp_path / "l.sqlite")
    assert [row[9] for row in stored].count("refused") == len(refused) == figures["refused"] == 1
    # The second attempt is the reminder, which follows the first reply.
    assert {row[1] for row in stored if row[9] == "unreadable"} == {1, 2}
    assert figures["retries"] == 4


async def test_truncated_reply_requested_again_with_higher_limit(tmp_path: Path) -> None:
    cut: list[str] = []

    def edit_result(number: int, line: Line) -> Line:
        body = body_of(server, number, line)
        if body["max_tokens"] == 2048:  # the lists of statements
            cut.append(str(body["messages"]))
            choice = line["response"]["body"]["choices"][0]
            choice["finish_reason"] = "length"
            choice["message"]["content"] = choice["message"]["content"][:30]
        return line

    with provider(edit_result=edit_result) as server:
        scored, figures = await score(settings(server.url), tmp_path / "l.sqlite")
        again, second = await score(settings(server.url), tmp_path / "l.sqlite")
    live_like = [response.complete for example in scored for response in example.responses]
    assert (all(live_like), figures["truncated"], second["calls"]) == (True, len(cut), 0)
    assert again == scored
    more = [line["body"] for line in server.requests() if line["body"]["max_tokens"] == 4096]
    assert sorted(str(body["messages"]) for body in more) == sorted(cut)
    assert {body["temperature"] for body in more} == {0.01}
    assert remaining_batches(tmp_path / "l.sqlite") == []


@pytest.mark.parametrize("status", [400, 422])
async def test_rejected_higher_limit_does_not_end_run(tmp_path: Path, status: int) -> None:
    def edit_result(number: int, line: Line) -> Line:
        body = body_of(server, number, line)
        if body["max_tokens"] > 2048:
            error = {"error": {"message": f"max_tokens is too large: {body['max_tokens']}"}}
            return line | {"response": {"status_code": status, "body": error}}
        if body["max_tokens"] == 2048:
            line["response"]["body"]["choices"][0]["finish_reason"] = "length"
        return line

    with provider(edit_result=edit_result) as server:
        config = settings(server.url, max_attempts=2, truncated_replies="complete_part")
        scored, figures = await score(config, tmp_path / "l.sqlite")
    verdicts = [response.verdicts["faithfulness"] for example in scored for response in example.responses]
    assert all(verdict.truncated and verdict.score is not None for verdict in verdicts)
    assert figures["refused"] == 0
    assert remaining_batches(tmp_path / "l.sqlite") == []


async def test_expired_batch_completed_and_retries_limited(tmp_path: Path) -> None:
    with provider(final_statuses=["expired"]) as server:
        scored, _ = await score(settings(server.url), tmp_path / "e.sqlite")
        assert all(response.complete for example in scored for response in example.responses)
        ids = [line["custom_id"] for line in server.requests()]
        assert len(ids) - len(set(ids)) == len(server.submitted[0]) // 2

    never = "helpfulness"

    def edit_result(number: int, line: Line) -> Line | None:
        return None if "Who founded Keld 1" in str(body_of(server, number, line)["messages"]) else line

    with provider(edit_result=edit_result) as server:
        scored, figures = await score(settings(server.url, max_retries=2), tmp_path / "n.sqlite")
    ids = [line["custom_id"] for line in server.requests()]
    assert max(map(ids.count, ids)) == 3
    assert scored[1].responses[0].verdicts[never].reason is not None  # type: ignore[index]
    assert all(response.complete for response in scored[0].responses)
    assert figures["failed"] > 0


async def test_cancelled_run_resumes_same_batches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with provider(polls_until_done=10**9) as server:
        task = asyncio.create_task(score(settings(server.url), tmp_path / "l.sqlite"))
        await wait_until(lambda: any("GET /v1/batches/" in path for path in server.paths))
        with caplog.at_level(logging.WARNING):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert "batch_0" in caplog.text
        for batch in server.batches.values():
            batch["_polls"] = 1
        server.polls_until_done = 1
        scored, _ = await score(settings(server.url), tmp_path / "l.sqlite")
        live, _ = await score(settings(server.url, "live"), tmp_path / "live.sqlite")
    assert scored == live
    assert len(server.submitted) == 2
    assert exchanges(tmp_path / "l.sqlite") == exchanges(tmp_path / "live.sqlite")


async def test_batch_with_lost_confirmation_found_and_not_created_again(
    tmp_path: Path,
) -> None:
    with provider(lose_confirmation=True) as server:
        task = asyncio.create_task(score(settings(server.url), tmp_path / "l.sqlite"))
        await wait_until(lambda: bool(server.submitted))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.lose_confirmation = False
        scored, _ = await score(settings(server.url), tmp_path / "l.sqlite")
    assert all(response.complete for example in scored for response in example.responses)
    assert len(server.submitted) == 2


async def test_second_process_on_same_batches_is_error(tmp_path: Path) -> None:
    ledger = tmp_path / "l.sqlite"
    with provider() as server:
        async with open_judge(settings(server.url), ledger=ledger):
            with pytest.raises(StateError, match=r"l\.batches/m-\w+: another process waits for these batches of 'm'"):
                await score(settings(server.url), ledger)
        scored, _ = await score(settings(server.url), ledger)
    assert all(response.complete for example in scored for response in example.responses)


async def test_refused_batch_is_error_and_removed(tmp_path: Path) -> None:
    with provider(final_statuses=["failed"]) as server:
        with pytest.raises(JudgeRefused, match="refused the batch batch_0: injected by the test"):
            await score(settings(server.url), tmp_path / "l.sqlite")
        assert remaining_batches(tmp_path / "l.sqlite") == []
        scored, _ = await score(settings(server.url), tmp_path / "l.sqlite")
    assert scored[0].responses[0].complete


async def test_batch_submitted_again_after_full_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_batch = Provider.create_batch

    with provider(final_statuses=["failed"]) as server:
        monkeypatch.setattr(Provider, "create_batch", lambda self, body: _with_limit_error(create_batch(self, body)))
        scored, _ = await score(settings(server.url), tmp_path / "l.sqlite")
    assert scored[0].responses[0].complete
    assert len(server.submitted) == 3
    assert server.submitted[0] == server.submitted[1]


async def test_requests_within_budget_processed_and_higher_budget_continues(tmp_path: Path) -> None:
    ledger, usage_file = tmp_path / "l.sqlite", tmp_path / "spent.json"

    async def scored(calls: int) -> list[ScoredExample]:
        with Budget(BudgetConfig(calls=calls), file=usage_file) as budget:
            async with open_judge(settings(server.url), ledger=ledger, budget=budget) as judge:
                return [example async for example in score_examples(judge, open_scorer(CONFIG), EXAMPLES)]

    with provider() as server:
        with pytest.raises(BudgetExceeded, match="10 calls"):
            await scored(10)
        assert len(exchanges(ledger)) == len(server.requests()) == 10
        scored = await scored(1000)
    ids = [line["custom_id"] for line in server.requests()]
    assert len(ids) == len(set(ids)) == len(exchanges(ledger)) > 10
    assert all(response.complete for example in scored for response in example.responses)


async def test_missing_batch_interface_and_missing_ledger_are_errors_with_advice(tmp_path: Path) -> None:
    with provider() as server:
        address = server.url.removesuffix("/v1") + "/elsewhere"
        with pytest.raises(JudgeRefused, match=r"has no batches \(404 at /elsewhere/files\)"):
            await score(settings(address), tmp_path / "l.sqlite")
        with pytest.raises(ConfigError, match="needs a ledger"):
            open_judge(settings(server.url), ledger=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "batch"}, "offline has no batch interface"),
        ({"mode": "batch", "kind": "vllm", "model": "m"}, "vllm has no batch interface"),
        ({"mode": "batch_files", "kind": "anthropic", "model": "m"}, "anthropic has no request files"),
        ({"mode": "batches"}, "mode"),
    ],
)
def test_batch_mode_rejected_for_judges_without_batches(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeConfig.parse(fields, source="params.yaml")


async def test_batch_mode_excludes_adaptive_strategy(tmp_path: Path) -> None:
    overrides = ["judge.kind=http", "judge.model=m", "judge.mode=batch", "score.strategy=adaptive"]
    with pytest.raises(ConfigError, match=r"set score\.strategy to full, or judge\.mode to live"):
        read_params(None, overrides)
    adaptive = CONFIG.model_copy(update={"strategy": "adaptive"})
    async with open_judge(settings("http://127.0.0.1:9/v1"), ledger=tmp_path / "l.sqlite") as judge:
        with pytest.raises(ConfigError, match="set it to full"):
            await anext(score_examples(judge, open_scorer(adaptive), EXAMPLES))


async def test_probe_contacts_no_server_in_mode_batch_files() -> None:
    (result,) = await probe(settings("http://127.0.0.1:9/v1", "batch_files"))
    assert result.ok
    assert "no server" in result.message


def test_dimension_on_another_server_is_live_by_default() -> None:
    other = {"faithfulness": {"kind": "vllm", "model": "q"}, "completeness": {"model": "n"}}
    config = JudgeConfig(kind="http", base_url="http://h/v1", model="m", mode="batch", dimensions=other)
    modes = {name: config.judge_for(name).mode for name in ("helpfulness", "faithfulness", "completeness")}
    assert modes == {"helpfulness": "batch", "faithfulness": "live", "completeness": "batch"}


async def test_zhipu_has_own_endpoint_and_file_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    monkeypatch.setitem(PROVIDERS, "zhipu", replace(PROVIDERS["zhipu"], batch_megabytes=0.02))  # type: ignore[misc]
    with provider() as server:
        config = JudgeConfig(
            kind="zhipu", base_url=server.url, api_key_env="MY_KEY", model="m", mode="batch", batch=dict(FAST)
        )
        await score(config, tmp_path / "l.sqlite")
    assert {line["url"] for line in server.requests()} == {"/v4/chat/completions"}
    assert {batch["endpoint"] for batch in server.batches.values()} == {"/v4/chat/completions"}
    assert max(len(server.files[batch["input_file_id"]]) for batch in server.batches.values()) <= 20_000


async def test_each_model_has_own_batches(tmp_path: Path) -> None:
    dimensions = {"faithfulness": {"model": "n"}, "logicality": {"system": "Be strict."}}
    with provider() as server:
        await score(settings(server.url, dimensions=dimensions), tmp_path / "l.sqlite")
    models = [{line["body"]["model"] for line in batch} for batch in server.submitted]
    assert sorted(map(sorted, models)) == [["m"], ["m"], ["n"], ["n"]]


async def test_files_for_another_program_collected_by_next_run(tmp_path: Path) -> None:
    ledger = tmp_path / "l.sqlite"
    config = settings("http://127.0.0.1:9/v1", "batch_files", {"requests_per_file": 8})
    waiting_counts: list[int] = []
    while (message := await asyncio.create_task(run_until_pending(config, ledger))) is not None:
        files = [state.with_name("requests.jsonl") for state in remaining_batches(ledger)]
        waiting = [file for file in files if not file.with_name("results.jsonl").exists()]
        assert f"wait in {len(waiting)} file" in message
        assert all(f"cd {file.parent} && vllm run-batch -i requests.jsonl" in message for file in waiting)
        for file in waiting[:2]:
            run_batch(file)
        waiting_counts.append(len(waiting))
    scored, figures = await score(config, ledger)
    with provider() as server:
        live, _ = await score(settings(server.url, "live"), tmp_path / "live.sqlite")
    assert scored == live
    assert exchanges(ledger) == exchanges(tmp_path / "live.sqlite")
    assert len(waiting_counts) > 2
    assert figures["calls"] == 0
    assert remaining_batches(ledger) == []


async def run_until_pending(config: JudgeConfig, ledger: Path) -> str | None:
    """Return the message of a run that waits for files; None if the run completes."""
    try:
        await score(config, ledger)
    except BatchPending as message:
        return str(message)
    return None


def run_batch(requests: Path) -> None:
    """Write results as `vllm run-batch` does; a failed request has an error beside a response without a body."""
    results = [output_line(json.loads(line)) for line in requests.read_text(encoding="utf-8").splitlines()]
    if not (marker := requests.parents[1] / "failed-once").exists():
        marker.touch()
        error = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
        results[0] |= {"response": {"status_code": 500, "request_id": "r", "body": None}, "error": error}
    requests.with_name("results.jsonl").write_text("\n".join(map(json.dumps, results)), encoding="utf-8")


def body_of(server: Provider, number: int, result: Line) -> dict[str, Any]:
    """Return the request body that a result line belongs to."""
    body: dict[str, Any] = next(
        request["body"] for request in server.submitted[number] if request["custom_id"] == result["custom_id"]
    )
    return body


async def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition was not met within a minute")


def _with_limit_error(batch: dict[str, Any]) -> dict[str, Any]:
    batch["_code"] = "token_limit_exceeded"
    return batch


def _text(line: Line) -> str:
    return str(line["body"]["messages"])
