"""`judge.reply_format: auto`: whether a server supports JSON schemas is detected once and recorded in the ledger."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, chat_server, completion_body

from longreward.errors import JudgeRefused
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.prompts import load_prompts
from longreward.judge.schema_support import SCHEMA_REQUEST
from longreward.judge.server_probe import probe
from longreward.planning.dry_run import DryRunJudge
from longreward.reward.parsers import parse_rating

TEXT_REPLY = "Good.\n\nRating: [[3]]"
JSON_REPLY = '{"analysis": "Good.", "rating": 8}'
PROBE_REPLY = '{"analysis": "3 is larger than 2.", "larger": 3}'
Reply = tuple[int, Any]


def has_schema(body: dict[str, Any]) -> bool:
    return "response_format" in body


def is_probe(body: dict[str, Any]) -> bool:
    return bool(body["messages"][0]["content"] == SCHEMA_REQUEST.text)


def follow_schema(body: dict[str, Any]) -> Reply:
    if not has_schema(body):
        return 200, completion_body(TEXT_REPLY)
    return 200, completion_body(PROBE_REPLY if is_probe(body) else JSON_REPLY)


def follow_schema_in_fence(body: dict[str, Any]) -> Reply:
    status, reply = follow_schema(body)
    if has_schema(body):
        message = reply["choices"][0]["message"]
        message["content"] = f"```json\n{message['content']}\n```"
    return status, reply


def think_first(body: dict[str, Any]) -> Reply:
    status, reply = follow_schema(body)
    message = reply["choices"][0]["message"]
    message["content"] = f'<think>{{"rating": 1}}</think>{message["content"]}'
    return status, reply


def ignore_schema(body: dict[str, Any]) -> Reply:
    return 200, completion_body("3 is larger than 2." if is_probe(body) else TEXT_REPLY)


def refuse_schema(body: dict[str, Any]) -> Reply:
    if has_schema(body):
        return 400, {"error": {"message": "'response_format' of type 'json_schema' is not supported"}}
    return 200, completion_body(TEXT_REPLY)


def fail_on_schema(body: dict[str, Any]) -> Reply:
    return (500, {"error": {"message": "grammar error"}}) if has_schema(body) else (200, completion_body(TEXT_REPLY))


async def query(server: ChatServer, ledger: Path | None = None, **settings: Any) -> float | None:
    defaults = {"kind": "http", "base_url": server.url, "model": "m", "reply_format": "auto", "max_retries": 1}
    config = JudgeConfig.model_validate(defaults | settings)
    request = load_prompts().template("helpfulness", "en").request({"question": "Who?", "answer": "Ann Lee."})
    async with open_judge(config, ledger=ledger) as judge:
        return (await judge.query(request, parse_rating)).value


@pytest.mark.parametrize(
    ("reply", "value", "probes", "message"),
    [
        (follow_schema, 8.0, 1, "its replies follow JSON schemas"),
        (follow_schema_in_fence, 8.0, 1, "its replies follow JSON schemas"),
        (think_first, 8.0, 1, "its replies follow JSON schemas"),
        (ignore_schema, 3.0, 1, "it ignores JSON schemas"),
        (refuse_schema, 3.0, 2, "'response_format' of type 'json_schema' is not supported"),
    ],
)
async def test_support_detected_once_per_ledger(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reply: Callable[[dict[str, Any]], Reply],
    value: float,
    probes: int,
    message: str,
) -> None:
    caplog.set_level(logging.INFO, "longreward")
    ledger = tmp_path / "ledger.sqlite"
    with chat_server(reply) as server:
        assert await query(server, ledger) == value
        assert await query(server, ledger, revision="") == value  # a later stage: all from the ledger
        assert [is_probe(body) for body in server.bodies] == [True] * probes + [False]
        assert has_schema(server.bodies[-1]) == (value == 8.0)
    assert message in caplog.text
    # A plan without a server knows it as well.
    plan = DryRunJudge(JudgeConfig(kind="http", base_url=server.url, model="m", reply_format="auto"), ledger=ledger)
    request = load_prompts().template("helpfulness", "en").request({"question": "Who?", "answer": "Ann Lee."})
    assert (await plan.query(request, parse_rating)).value == value
    await plan.close()


async def test_each_server_and_model_is_detected(tmp_path: Path) -> None:
    with chat_server(follow_schema) as first, chat_server(ignore_schema) as second:
        assert await query(first, tmp_path / "l.sqlite") == 8.0
        assert await query(second, tmp_path / "l.sqlite") == 3.0
        assert await query(first, tmp_path / "l.sqlite", model="other") == 8.0
    assert [is_probe(body) for body in first.bodies] == [True, False, True, False]
    assert [is_probe(body) for body in second.bodies] == [True, False]


async def test_internal_error_means_text_for_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.retry.INITIAL_BACKOFF_S", 0.0)
    with chat_server(fail_on_schema) as server:
        assert await query(server, tmp_path / "l.sqlite") == 3.0
    with chat_server(follow_schema) as server:  # repaired, at another port; nothing wrong is recorded about it
        assert await query(server, tmp_path / "l.sqlite") == 8.0


async def test_refusal_for_another_reason_is_raised() -> None:
    not_found = {"error": {"message": "model 'm' not found"}}
    with chat_server(lambda body: (404, not_found)) as server, pytest.raises(JudgeRefused, match="model 'm' not found"):
        await query(server)


@pytest.mark.parametrize(
    "settings", [{"extra_body": {"response_format": {"type": "json_object"}}}, {"kind": "offline"}]
)
def test_no_detection_where_it_makes_no_sense(settings: dict[str, Any]) -> None:
    assert JudgeConfig(**{"kind": "http", "model": "m", "reply_format": "auto"} | settings).uses_schemas is False


def test_batch_files_are_written_without_a_server() -> None:
    config = {"kind": "vllm", "model": "m", "mode": "batch_files"}
    assert JudgeConfig.model_validate(config | {"reply_format": "auto"}).uses_schemas is False
    assert JudgeConfig.model_validate(config | {"reply_format": "json_schema"}).uses_schemas is True


@pytest.mark.parametrize(
    ("reply", "message"),
    [(follow_schema, "supported"), (ignore_schema, "ignored"), (refuse_schema, r"refused \(.*is not supported")],
)
async def test_doctor_tells_whether_schemas_are_supported(
    reply: Callable[[dict[str, Any]], Reply], message: str
) -> None:
    with chat_server(reply) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", reply_format="auto")
        (result,) = await probe(config)
        (text,) = await probe(config.model_copy(update={"reply_format": "text"}))
    assert re.search(rf"JSON schemas \(judge\.reply_format\): {message}", result.message)
    assert "schema" not in text.message
