"""Anthropic's Message Batches, against a local server that follows the API and answers with the offline judge."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batch_server import PROMPTS
from http_server import JsonHandler, http_server

from longreward.errors import JudgeRefused
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.batch.anthropic import result_line
from longreward.offline_judge_server import reply_text
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, open_scorer, score_examples

CONFIG = ScoreConfig(evidence_chunk_tokens=12, evidence_chunks=2, extraction_chunk_tokens=24, prompts_in_flight=1)
QUERY = "Who founded Keld, and when?"
EXAMPLE = Example(
    id="1", document_id="1", context="Keld was founded by Ann Lee in 1905. The mill burned down.", query=QUERY
)
RESPONSES = [
    Response(id=f"1-{number}", example_id="1", query=QUERY, text=text)
    for number, text in enumerate(["Ann Lee founded Keld in 1905.", "Bo Ek founded it."])
]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-ant-secret")


def reply_message(params: dict[str, Any]) -> dict[str, Any]:
    content = params["messages"][0]["content"]
    prompt = content if isinstance(content, str) else "".join(block["text"] for block in content)
    text = {"type": "text", "text": reply_text(PROMPTS, prompt)}
    usage = {"input_tokens": 100, "output_tokens": 10}
    return {"type": "message", "model": params["model"], "content": [text], "stop_reason": "end_turn", "usage": usage}


@dataclass
class BatchesServer:
    """The state of the server; `results` replaces the first results of a batch, by its number."""

    url: str = ""
    live: int = 0
    batches: list[dict[str, Any]] = field(default_factory=list)
    submitted: list[list[dict[str, Any]]] = field(default_factory=list)
    results: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    lose_confirmation: bool = False
    headers: list[Any] = field(default_factory=list)

    def create(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        self.submitted.append(requests)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        batch = {
            "id": f"msgbatch_{len(self.batches)}",
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": counts | {"processing": len(requests)},
            "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "results_url": None,
        }
        self.batches.append(batch)
        return batch

    def poll(self, number: int) -> dict[str, Any]:
        """The first poll finds the batch in progress, the second one ended."""
        batch = dict(self.batches[number])
        counts = batch["request_counts"]
        ended = counts | {"processing": 0, "succeeded": counts["processing"]}
        self.batches[number] |= {"processing_status": "ended", "request_counts": ended}
        return batch

    def result_lines(self, number: int) -> bytes:
        requests = self.submitted[number]
        results = [{"type": "succeeded", "message": reply_message(request["params"])} for request in requests]
        results[: len(self.results.get(number, []))] = self.results.get(number, [])
        rows = [
            {"custom_id": request["custom_id"], "result": result}
            for request, result in zip(requests, results, strict=True)
        ]
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in reversed(rows)).encode()


@contextmanager
def batches_server(**settings: Any) -> Iterator[BatchesServer]:
    state = BatchesServer(**settings)

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = self.read_json()
            state.headers.append(self.headers)
            if self.path == "/v1/messages":
                state.live += 1
                self.send(reply_message(body))
            elif self.path == "/v1/messages/batches":
                batch = state.create(body["requests"])
                if state.lose_confirmation:
                    state.lose_confirmation = False
                    self.close_connection = True
                    return
                self.send(batch)

        def do_GET(self) -> None:
            state.headers.append(self.headers)
            *_, name = self.path.partition("?")[0].split("/")
            if name == "batches":
                self.send({"data": list(reversed(state.batches)), "has_more": False})
            elif name == "results":
                self.send(state.result_lines(int(self.path.split("/")[-2].removeprefix("msgbatch_"))))
            elif (number := int(name.removeprefix("msgbatch_"))) < len(state.batches):
                self.send(state.poll(number))
            else:
                self.send({"type": "error", "error": {"type": "not_found_error", "message": "no such batch"}}, 404)

    with http_server(Handler) as address:
        state.url = f"{address}/v1"
        yield state


async def score(
    url: str, ledger: Path, mode: str = "batch", **more: Any
) -> tuple[list[ScoredExample], dict[str, float]]:
    settings = {"kind": "anthropic", "base_url": url, "model": "claude", "api_key_env": "MY_JUDGE_KEY", "mode": mode}
    config = JudgeConfig.model_validate(settings | {"batch": {"settle_s": 0.15, "poll_s": 0.02}} | more)
    async with open_judge(config, ledger=ledger) as judge:
        scored = [example async for example in score_examples(judge, open_scorer(CONFIG), [(EXAMPLE, RESPONSES)])]
        return scored, judge.metrics()


def remaining_batches(ledger: Path) -> list[Path]:
    return list(ledger.with_name(f"{ledger.stem}.batches").glob("*/*/batch.json"))


async def test_batches_give_the_scores_of_live_calls(tmp_path: Path) -> None:
    with batches_server() as server:
        live, _ = await score(server.url, tmp_path / "live.sqlite", "live")
        live_calls = server.live
        scored, metrics = await score(server.url, tmp_path / "batch.sqlite")
        again, repeated = await score(server.url, tmp_path / "batch.sqlite", "live")
    assert scored == live == again
    assert (metrics["calls"], repeated["calls"], server.live) == (live_calls, 0, live_calls)
    assert sum(map(len, server.submitted)) == live_calls
    request = server.submitted[0][0]
    assert set(request) == {"custom_id", "params"}
    assert set(request["params"]) == {"model", "max_tokens", "temperature", "messages"}
    assert all(headers["x-api-key"] == "sk-ant-secret" and "authorization" not in headers for headers in server.headers)
    assert remaining_batches(tmp_path / "batch.sqlite") == []


async def test_errors_and_expired_requests(tmp_path: Path) -> None:
    refused = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    results = [{"type": "errored", "error": busy}, {"type": "expired"}, {"type": "errored", "error": refused}]
    with batches_server(results={0: results}) as server:
        scored, metrics = await score(server.url, tmp_path / "l.sqlite")
    # The first two are requested again, the third one is not.
    first, second = server.submitted[:2]
    assert {request["custom_id"] for request in first[:2]} <= {request["custom_id"] for request in second}
    assert first[2]["custom_id"] not in {request["custom_id"] for batch in server.submitted[1:] for request in batch}
    assert metrics["retries"] == 2
    reasons = [verdict.reason for response in scored[0].responses for verdict in response.verdicts.values()]
    reasons += [extract.reason for extract in scored[0].extraction.extracts]
    assert any("too long" in (reason or "") for reason in reasons)


async def test_batch_with_lost_confirmation_is_not_created_again(tmp_path: Path) -> None:
    with batches_server(lose_confirmation=True) as server:
        live, _ = await score(server.url, tmp_path / "live.sqlite", "live")
        scored, _ = await score(server.url, tmp_path / "batch.sqlite")
    assert scored == live
    ids = [request["custom_id"] for batch in server.submitted for request in batch]
    assert len(ids) == len(set(ids)) == server.live


async def test_unknown_batch_is_error(tmp_path: Path) -> None:
    ledger = tmp_path / "l.sqlite"
    with batches_server() as server:
        create = server.create

        def create_and_forget(requests: list[dict[str, Any]]) -> dict[str, Any]:
            batch = create(requests)
            server.batches.clear()
            return batch

        server.create = create_and_forget  # type: ignore[method-assign]
        with pytest.raises(JudgeRefused, match=r"does not know the batch msgbatch_0 .*; remove .* requests again"):
            await score(server.url, ledger)
    assert len(remaining_batches(ledger)) == 1


def test_result_lines() -> None:
    """A line that is cut off, or has another form, stays as it is: its request is then made again."""
    for line in ('{"custom_id": "a", "res', "[]", '{"custom_id": "a", "result": null}'):
        assert result_line(line) == f"{line}\n"
    unknown = {"custom_id": "a", "result": {"type": "errored", "error": {"type": "new_error", "message": "m"}}}
    assert json.loads(result_line(json.dumps(unknown)))["response"]["status_code"] == 500
