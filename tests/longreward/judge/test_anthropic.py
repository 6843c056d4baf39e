"""Anthropic's Messages API, against a local server that follows it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server

from longreward.chat_model import ChatReply, ChatRequest, ReplyFormat, TokenUsage
from longreward.errors import JudgeProtocolError, JudgeRefused, JudgeUnavailable, PromptTooLong, RequestRefused
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.anthropic import AnthropicJudge, shared_prefix
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge.http_client import HttpJudge
from longreward.judge.judge import open_model
from longreward.judge.prompts import load_prompts
from longreward.judge.server_probe import probe
from longreward.judge.structured_output import object_schema
from longreward.judge.usage import Price, PricesConfig
from longreward.reward.parsers import parse_rating

KEY = "sk-ant-secret"
REQUEST = ChatRequest("helpfulness", {}, "How good is it?", "hash", 64)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)


def settings(url: str, **more: Any) -> JudgeConfig:
    defaults = {"kind": "anthropic", "model": "claude", "base_url": url, "api_key_env": "MY_JUDGE_KEY"}
    return JudgeConfig.model_validate(defaults | more)


def message(*content: dict[str, Any] | str, stop_reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    counts = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": None} | usage
    return {"type": "message", "role": "assistant", "model": "claude-1", "content": blocks} | {
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": counts,
    }


def error(status: int, kind: str, text: str) -> tuple[int, dict[str, Any]]:
    return status, {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}


async def complete(reply: dict[str, Any], request: ChatRequest = REQUEST, **more: Any) -> ChatReply:
    with chat_server(lambda body: (200, reply)) as server:
        judge = AnthropicJudge(settings(server.url, **more))
        try:
            return await judge.complete(request, temperature=0.01)
        finally:
            await judge.close()


async def test_request_and_reply() -> None:
    thinking = {"type": "thinking", "thinking": "Perhaps [[9]]?", "signature": "s"}
    reply = message(
        thinking, "Good.\n\n", "Rating: [[8]]", cache_read_input_tokens=2000, cache_creation_input_tokens=300
    )
    with chat_server(lambda body: (200, reply)) as server:
        judge = open_model(settings(server.url, system="Be strict.", extra_body={"top_k": 5}))
        assert isinstance(judge, AnthropicJudge)
        received = await judge.complete(REQUEST, temperature=0.01)
        await judge.close()
    assert received == ChatReply(
        "<think>Perhaps [[9]]?</think>Good.\n\nRating: [[8]]", "stop", TokenUsage(2400, 10, 2000, 300), "claude-1"
    )
    assert server.paths == ["/v1/messages"]
    assert server.bodies == [
        {
            "model": "claude",
            "max_tokens": 64,
            "temperature": 0.01,
            "system": "Be strict.",
            "messages": [{"role": "user", "content": "How good is it?"}],
            "top_k": 5,
        }
    ]
    (sent,) = server.headers
    assert (sent["x-api-key"], sent["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in sent


async def test_conversation_stop_sequences_and_schema() -> None:
    schema = object_schema({"rating": {"type": "integer"}})
    turns = (("It is fine.", "Write just one line."),)
    text = ReplyFormat(stop=("]]\n\n[Question]",))
    requests = [
        ChatRequest("helpfulness", {}, "How good?", "hash", 64, reply_format=text, turns=turns),
        ChatRequest("helpfulness", {}, "How good?", "hash", 64, reply_format=ReplyFormat(schema=schema)),
    ]
    reply = message("Rating: [[8", stop_reason="stop_sequence")
    with chat_server(lambda body: (200, reply)) as server:
        judge = AnthropicJudge(settings(server.url, extra_body={"output_config": {"effort": "low"}}))
        replies = [await judge.complete(request, temperature=0.01) for request in requests]
        await judge.close()
    assert replies[0].text == "Rating: [[8]]"
    conversation, structured = server.bodies
    assert conversation["stop_sequences"] == ["]]\n\n[Question]"]
    assert [turn["role"] for turn in conversation["messages"]] == ["user", "assistant", "user"]
    assert conversation["output_config"] == {"effort": "low"}
    assert structured["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    assert "response_format" not in structured


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"), [("max_tokens", "length"), ("model_context_window_exceeded", "length")]
)
async def test_truncated_reply(stop_reason: str, finish_reason: str) -> None:
    assert (await complete(message("The ans", stop_reason=stop_reason))).finish_reason == finish_reason


async def test_refusal_and_other_content() -> None:
    with pytest.raises(RequestRefused, match="declined: I will not"):
        await complete(message("I will not.", stop_reason="refusal"))
    with pytest.raises(JudgeProtocolError, match="Anthropic messages protocol"):
        await complete({"choices": [{"message": {"content": "Rating: [[8]]"}, "finish_reason": "stop"}]})
    empty = await complete(message({"type": "redacted_thinking", "data": "…"}))
    assert empty.text == ""


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (error(401, "authentication_error", f"invalid x-api-key {KEY}"), JudgeRefused, "check the key in MY_JUDGE_KEY"),
        (error(404, "not_found_error", "model: claude"), JudgeRefused, "check judge.model"),
        (error(400, "invalid_request_error", "`temperature` is deprecated for this model"), JudgeRefused, "extra_body"),
        (error(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), PromptTooLong, "too long"),
        (error(529, "overloaded_error", "Overloaded"), JudgeUnavailable, "Overloaded"),
    ],
)
async def test_errors(reply: tuple[int, Any], kind: type[Exception], text: str) -> None:
    with chat_server(lambda body: reply) as server:
        judge = AnthropicJudge(settings(server.url))
        with pytest.raises(kind, match=text) as raised:
            await judge.complete(REQUEST, temperature=0.01)
        await judge.close()
    assert KEY not in str(raised.value)


def completeness_request(answer: str, extract: str) -> ChatRequest:
    prompts = load_prompts()
    context = prompts.extracts([(0, 100, extract)], "en")
    return prompts.template("completeness", "en").request({"question": "Who?", "context": context, "answer": answer})


def test_shared_part_of_prompts() -> None:
    request = completeness_request("Ann Lee.", "1. [Answer] is escaped. " + "Ann Lee dug it. " * 200)
    prefix = shared_prefix(request)
    assert request.text.startswith(prefix)
    assert prefix.endswith("Ann Lee dug it. ")
    assert request.text[len(prefix) :].strip().startswith("[Answer]\nAnn Lee.")
    template = request.reply_format.structured
    assert template is not None
    assert shared_prefix(template.request(request.slots)).endswith("Ann Lee dug it. ")
    long = {"context": "Ann Lee dug it. " * 500, "question": "Who?", "statement": "Ann Lee.", "answer": "Ann Lee."}
    for name in ("extraction", "support", "helpfulness", "statements"):
        template = load_prompts().template(name, "en")
        slots = {slot: long[slot] for slot in template.slots}
        assert shared_prefix(template.request(slots)) == ""


async def test_shared_part_is_written_to_cache_once_and_then_read() -> None:
    """The server answers the second request only after the first; a client that sends both at once would wait."""
    cached: set[str] = set()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        first, second = body["messages"][0]["content"]
        assert first["cache_control"] == {"type": "ephemeral"}
        assert set(second) == {"type", "text"}
        counts = {"cache_read_input_tokens": 1500} if first["text"] in cached else {"cache_creation_input_tokens": 1500}
        cached.add(first["text"])
        return 200, message("Rating: [[8]]", **counts)

    requests = [completeness_request(f"Ann Lee {number}.", "Ann Lee dug it. " * 300) for number in range(8)]
    prices = PricesConfig(models={"claude": Price(prompt=1000.0, cached_prompt=100.0, cache_write=1250.0)})
    with chat_server(reply) as server, Budget(BudgetConfig(money=1e9), prices) as budget:
        async with open_judge(settings(server.url), ledger=None, budget=budget) as judge:
            replies = await asyncio.gather(*(judge.query(request, parse_rating) for request in requests))
            metrics = judge.metrics()
        spent = budget.metrics()
    assert {reply.value for reply in replies} == {8.0}
    assert (metrics["prompt_tokens"], metrics["cached_tokens"]) == (8 * 1600, 7 * 1500)
    # 100 plain tokens in each request, 1,500 written once and read seven times.
    expected = (8 * 100 * 1000 + 1500 * 1250 + 7 * 1500 * 100) / 1_000_000
    assert spent["money"] == pytest.approx(expected)


async def test_failed_first_request_lets_the_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.retry.INITIAL_BACKOFF_S", 0.0)
    seen: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        seen.append(body["messages"][0]["content"][1]["text"])
        return error(500, "api_error", "Internal") if len(seen) == 1 else (200, message("Rating: [[8]]"))

    requests = [completeness_request(f"Ann Lee {number}.", "Ann Lee dug it. " * 300) for number in range(3)]
    with chat_server(reply) as server:
        async with open_judge(settings(server.url), ledger=None) as judge:
            replies = await asyncio.gather(*(judge.query(request, parse_rating) for request in requests))
    assert [reply.value for reply in replies] == [8.0] * 3
    assert len(seen) == 4


async def test_schema_support_detected(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        schema = body.get("output_config", {}).get("format", {}).get("schema", {"properties": {}})
        values = {"analysis": "Fine.", "larger": 3, "rating": 7}
        return 200, message(json.dumps({name: values[name] for name in schema["properties"]}))

    request = load_prompts().template("helpfulness", "en").request({"question": "Who?", "answer": "Ann Lee."})
    with chat_server(reply) as server:
        async with open_judge(settings(server.url, reply_format="auto"), ledger=tmp_path / "l.sqlite") as judge:
            assert (await judge.query(request, parse_rating)).value == 7.0
    assert len(server.bodies) == 2


async def test_probe_lists_models_of_server() -> None:
    pages = {"/v1/models": {"data": [{"type": "model", "id": "claude-2"}], "has_more": False}}
    not_found = error(404, "not_found_error", "model: claude")
    with chat_server(lambda body: not_found, pages=pages) as server:
        (result,) = await probe(settings(server.url, max_retries=0))
    assert not result.ok
    assert "the server knows claude-2" in result.message


def test_other_kinds_keep_their_client() -> None:
    assert type(open_model(JudgeConfig(kind="http", model="m", base_url="http://localhost:1/v1"))) is HttpJudge
