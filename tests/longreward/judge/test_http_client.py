"""The HTTP judge against real servers on the loopback interface."""

import asyncio
import contextlib
import logging
import socket
import threading
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from longreward.chat_model import ReplyFormat, parse_logprobs
from longreward.errors import (
    ConfigError,
    JudgeError,
    JudgeProtocolError,
    JudgeRefused,
    JudgeUnavailable,
    PromptTooLong,
    RequestRefused,
    TransientFailure,
)
from longreward.judge import ChatReply, ChatRequest, JudgeConfig, ParsedReply, open_judge
from longreward.judge.http_client import HttpJudge, read_api_key
from longreward.judge.ledger import request_id

pytestmark = pytest.mark.usefixtures("no_keys")

KEY = "sk-test-0123456789-very-secret"
REQUEST = ChatRequest("helpfulness", {}, "How good is it?", "h", 64)
NOWHERE = "http://127.0.0.1:9/v1"


async def complete(url: str | None, request: ChatRequest = REQUEST, **settings: Any) -> ChatReply:
    """Send one request without retries, as RetryingClient does."""
    temperature = settings.pop("temperature", 0.01)
    judge = HttpJudge(JudgeConfig(**({"kind": "http", "base_url": url, "model": "m"} | settings)))
    try:
        return await judge.complete(request, temperature=temperature)
    finally:
        await judge.close()


async def failure(url: str | None, error: type[JudgeError], **settings: Any) -> JudgeError:
    with pytest.raises(error) as caught:
        await complete(url, **settings)
    assert type(caught.value) is error
    return caught.value


async def query(url: str | None, *, ledger: Path | None = None, **settings: Any) -> ParsedReply[str]:
    fields = {"kind": "http", "base_url": url, "model": "m", "max_retries": 0, "max_attempts": 1} | settings
    async with open_judge(JudgeConfig(**fields), ledger=ledger) as judge:
        return await judge.query(REQUEST, lambda text: text or None)


# Requests


@pytest.mark.parametrize(
    ("settings", "temperature", "fields"),
    [
        ({"kind": "openai"}, 0.01, {"max_completion_tokens": 64, "temperature": 0.01}),
        ({"kind": "openai", "length_field": "max_tokens"}, 0.01, {"max_tokens": 64, "temperature": 0.01}),
        ({"kind": "openai", "extra_body": {"temperature": None}}, 0.01, {"max_completion_tokens": 64}),
        (
            {"kind": "openai", "extra_body": {"reasoning_effort": "low"}},
            0.95,
            {"max_completion_tokens": 64, "temperature": 0.95, "reasoning_effort": "low"},
        ),
        ({"kind": "zhipu"}, 0.01, {"max_tokens": 64, "temperature": 0.01}),
        ({"kind": "zhipu"}, 0.0, {"max_tokens": 64, "do_sample": False}),
        (
            {"kind": "zhipu", "extra_body": {"thinking": {"type": "disabled"}}},
            0.01,
            {"max_tokens": 64, "temperature": 0.01, "thinking": {"type": "disabled"}},
        ),
        (
            {"kind": "gemini", "extra_body": {"reasoning_effort": "low"}},
            0.0,
            {"max_tokens": 64, "temperature": 0.0, "reasoning_effort": "low"},
        ),
        ({"kind": "anthropic"}, 0.0, {"max_tokens": 64, "temperature": 0.0}),
        (
            {"kind": "vllm", "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
            0.01,
            {"max_tokens": 64, "temperature": 0.01, "chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            {"kind": "http", "length_field": "max_completion_tokens"},
            0.0,
            {"max_completion_tokens": 64, "temperature": 0},
        ),
        (
            {"extra_body": {"max_tokens": None, "max_completion_tokens": 4096, "temperature": 1, "top_k": 5}},
            0.01,
            {"max_completion_tokens": 4096, "temperature": 1, "top_k": 5},
        ),
    ],
)
async def test_fields_of_request(
    serve_chat: Any,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    temperature: float,
    fields: dict[str, Any],
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "k")
    with serve_chat("[[4]]") as server:
        await complete(server.url, temperature=temperature, **({"api_key_env": "MY_JUDGE_KEY"} | settings))
    messages = [{"role": "user", "content": "How good is it?"}]
    assert server.bodies == [{"model": "m", "messages": messages} | fields]


RATING_REQUEST = ChatRequest(
    "helpfulness", {}, "How good is it?", "h", 16, reply_format=ReplyFormat(stop=("]]\n\n[Question]", "]]\n[Question]"))
)


@pytest.mark.parametrize(
    ("settings", "stop"),
    [
        ({"kind": "vllm"}, ["]]\n\n[Question]", "]]\n[Question]"]),
        ({"kind": "zhipu", "api_key_env": "MY_JUDGE_KEY"}, ["]]\n\n[Question]"]),  # takes one
        ({"kind": "openai", "api_key_env": "MY_JUDGE_KEY"}, None),  # its reasoning models take none
        ({"kind": "vllm", "thinking_tokens": 100}, None),  # the thoughts may repeat the prompt
        ({"kind": "http", "mode": "batch"}, None),  # a refusal would end the run
        ({"kind": "vllm", "mode": "batch_files"}, ["]]\n\n[Question]", "]]\n[Question]"]),
        ({"kind": "vllm", "extra_body": {"stop": None}}, None),
        ({"kind": "vllm", "extra_body": {"stop": ["###"]}}, ["###"]),
    ],
)
async def test_stop_sequences(
    serve_chat: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], stop: list[str] | None
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "k")
    with serve_chat("Fine. Rating: [[7") as server:
        reply = await complete(server.url, RATING_REQUEST, **settings)
    assert server.bodies[0].get("stop") == stop
    was_cut = stop is not None and stop != ["###"]
    assert reply.text == ("Fine. Rating: [[7]]" if was_cut else "Fine. Rating: [[7")


async def test_refused_stop_sequences_are_omitted_from_then_on(serve_chat: Any, completion: Any) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        if "stop" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'stop' is not supported with this model."}}
        return 200, completion("Rating: [[7]]")

    with serve_chat(reply) as server:
        config = JudgeConfig(kind="http", model="m", base_url=server.url)
        async with open_judge(config, ledger=None) as judge:
            at_once = [judge.query(replace(RATING_REQUEST, text=text), lambda text: text) for text in "abc"]
            assert [reply.text for reply in await asyncio.gather(*at_once)] == ["Rating: [[7]]"] * 3
            await judge.query(replace(RATING_REQUEST, text="d"), lambda text: text)
    with_stop = [body["messages"][0]["content"] for body in server.bodies if "stop" in body]
    assert set(with_stop) <= {"a", "b", "c"}
    assert len(with_stop) == len(server.bodies) - 4


async def test_system_prompts_of_settings_and_of_request(serve_chat: Any) -> None:
    request = ChatRequest("t", {}, "How good is it?", "h", 16, system="You are fair.")
    with serve_chat("Well.") as server:
        await complete(server.url, request, system="Be brief.")
    assert server.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief.\n\nYou are fair."},
        {"role": "user", "content": "How good is it?"},
    ]


async def test_system_prompt_is_part_of_ledger_key(serve_chat: Any, tmp_path: Path) -> None:
    with serve_chat("[[4]]") as server:
        for system in ("", "Be strict.", "Be mild.", "", "Be strict."):
            await query(server.url, ledger=tmp_path / "l.sqlite", system=system)
    assert [len(body["messages"]) for body in server.bodies] == [1, 2, 2]


async def test_requests_are_concurrent_up_to_max_concurrency(serve_chat: Any, completion: Any) -> None:
    barrier, lock, running, peak = threading.Barrier(8), threading.Lock(), 0, 0

    def reply(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        barrier.wait(60)  # fewer than 8 concurrent requests would never get a reply
        with lock:
            running -= 1
        return 200, completion("[[7]]")

    with serve_chat(reply) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", max_concurrency=8)
        async with open_judge(config, ledger=None) as judge:
            requests = [ChatRequest("t", {}, str(n), "h", 64) for n in range(24)]
            replies = await asyncio.gather(*(judge.query(request, lambda text: text) for request in requests))
    assert [reply.value for reply in replies] == ["[[7]]"] * 24
    assert peak == 8


# Replies


async def test_text_parts_joined_and_invalid_values_replaced(serve_chat: Any, completion: Any) -> None:
    usage = {"prompt_tokens": "many", "completion_tokens": 10**30, "prompt_tokens_details": {"cached_tokens": -3}}
    parts: Any = [{"type": "text", "text": "\ud800 "}, {"type": "text", "text": "[[7]]"}]
    with serve_chat(lambda _: (200, completion(parts) | {"usage": usage})) as server:
        reply = await complete(server.url)
    assert reply.text == "? [[7]]"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.cached_tokens) == (0, 0, 0)


async def test_reasoning_that_is_only_in_total_counts_as_completion(serve_chat: Any, completion: Any) -> None:
    """Gemini's usage: 405 tokens of reasoning are charged as output."""
    usage = {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}
    with serve_chat(lambda _: (200, completion("[[7]]") | {"usage": usage})) as server:
        reply = await complete(server.url)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (20, 603)


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "content_filter: SAFETY"])
async def test_reply_that_gemini_withheld(serve_chat: Any, reason: str) -> None:
    body = {"choices": [{"finish_reason": reason, "index": 0, "message": {"role": "assistant"}}]}
    with serve_chat(lambda _: (200, body)) as server:
        error = await failure(server.url, RequestRefused)
    assert reason in str(error)


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, "<html><h1>Welcome</h1></html>", "text/html"),
        (404, "<html>nothing here</html>", "text/html"),
        (200, "", "application/json"),
        (200, "{", "application/json"),
        (200, "[]", "application/json"),
        (200, '{"choices": []}', "application/json"),
        (200, '{"choices": null}', "application/json"),
        (200, '{"choices": [{"message": null}]}', "application/json"),
        (200, '{"answer": "yes"}', "application/json"),
    ],
)
async def test_reply_outside_protocol(serve_chat: Any, status: int, body: str, content_type: str) -> None:
    with serve_chat(lambda _: (status, body), content_type=content_type) as server:
        error = await failure(server.url, JudgeProtocolError)
    assert "does judge.base_url end in /v1?" in str(error)
    assert error.transient is None


@pytest.mark.parametrize(
    ("body", "error", "is_transient"),
    [
        ({"error": {"message": "upstream", "code": 502}}, JudgeUnavailable, True),
        ({"error": "overloaded"}, JudgeUnavailable, True),
        ({"error": {"message": "bad key", "code": 401}}, JudgeRefused, False),
        ({"error": {"message": "x", "code": "content_filter"}}, RequestRefused, False),
        ({"choices": []}, JudgeProtocolError, True),
        ({"choices": [{"message": {"content": 7}}]}, JudgeProtocolError, True),
        ({"choices": [{"message": {"content": {"a": 1}}}]}, JudgeProtocolError, True),
    ],
)
async def test_error_in_successful_reply(
    serve_chat: Any, completion: Any, body: Any, error: type[JudgeError], is_transient: bool
) -> None:
    bodies = [completion("[[7]]"), body]  # a proper reply first: an invalid one is then an accident
    with serve_chat(lambda _: (200, bodies.pop(0))) as server:
        judge = HttpJudge(JudgeConfig(kind="http", base_url=server.url, model="m"))
        assert (await judge.complete(REQUEST, temperature=0)).text == "[[7]]"
        with pytest.raises(error) as caught:
            await judge.complete(REQUEST, temperature=0)
        await judge.close()
    assert type(caught.value) is error
    assert (caught.value.transient is not None) == is_transient


@pytest.mark.parametrize(
    ("status", "content", "finish", "message"),
    [
        (400, '{"error": {"message": "filtered", "code": "content_filter"}}', "", {}),
        (200, "", "content_filter", {}),
        (200, None, "stop", {"refusal": "I would rather not."}),
        (200, "The response was filtered due to our policy.", "stop", {}),
    ],
)
async def test_refused_request_recorded_and_not_repeated(
    serve_chat: Any, completion: Any, tmp_path: Path, status: int, content: str, finish: str, message: dict[str, Any]
) -> None:
    body = completion(content, finish, **message) if status == 200 else content
    with serve_chat(lambda _: (status, body)) as server:
        for _ in range(2):
            reply = await query(server.url, ledger=tmp_path / "l.sqlite")
            assert reply.value is None
            assert reply.reason
    assert len(server.bodies) == 1


async def test_openai_parameter_errors_solved_by_advice(
    serve_chat: Any, completion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def openai(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "max_tokens" in body:
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            return 400, {"error": {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}}
        if body.get("temperature", 1) != 1:
            message = (
                "Unsupported value: 'temperature' does not support 0.01 with this model. Only the default is supported."
            )
            return 400, {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}}
        return 200, completion("Rating: [[4]]")

    monkeypatch.setenv("MY_JUDGE_KEY", "k")
    with serve_chat(openai) as server:
        assert "set judge.length_field to max_completion_tokens" in str(await failure(server.url, JudgeRefused))
        error = await failure(server.url, JudgeRefused, length_field="max_completion_tokens")
        assert 'set judge.extra_body to {"temperature": null}' in str(error)
        reply = await complete(server.url, kind="openai", api_key_env="MY_JUDGE_KEY", extra_body={"temperature": None})
        assert reply.text == "Rating: [[4]]"


# Connections


async def test_refused_connection() -> None:
    error = await failure(NOWHERE, JudgeUnavailable)
    assert "is the server running?" in str(error)
    assert error.transient == TransientFailure()  # no overload: fewer calls do not help


async def test_closed_connection() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    error = await failure(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", JudgeUnavailable)
    server.close()
    assert error.transient == TransientFailure(disconnected=True)
    assert error.may_be_billed


async def test_timeout() -> None:
    connections: list[asyncio.StreamWriter] = []

    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    error = await failure(url, JudgeUnavailable, timeout_s=0.5)
    for writer in connections:
        writer.close()
    server.close()
    assert "did not answer within 0.5 s" in str(error)
    assert error.transient == TransientFailure(timed_out=True)
    assert error.may_be_billed


async def test_connection_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.http_client.CONNECT_TIMEOUT_S", 0.3)
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # fill the queue of connections; the next one is not accepted
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        error = await failure(f"http://127.0.0.1:{full.getsockname()[1]}/v1", JudgeUnavailable, timeout_s=30)
    assert "within 0.3 s; is the address right?" in str(error)
    assert error.transient == TransientFailure(disconnected=True)
    assert not error.may_be_billed


# API keys


async def test_key_appears_in_no_error_reply_log_or_ledger(
    serve_chat: Any,
    completion: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    replies = [
        (401, {"error": {"message": "incorrect key {auth}"}}),
        (500, {"error": {"message": "{auth}"}}),
        (200, "<html>{auth}</html>"),
        (400, {"error": {"code": "content_filter", "message": "{auth}"}}),
        (200, completion("you are {auth}")),
    ]
    for revision, reply in enumerate(replies):
        with serve_chat(lambda _, reply=reply: reply) as server:
            settings = {"api_key_env": "JUDGE_KEY", "revision": str(revision)}
            try:
                texts.append(repr(await query(server.url, ledger=tmp_path / "l.sqlite", **settings)))
            except JudgeError as error:
                texts += traceback.format_exception(error, chain=True)
                texts += [repr(error), repr(error.__context__), repr(error.__cause__)]
    assert sum("Bearer ***" in text for text in texts) >= 5  # the server did receive it
    assert KEY not in "".join(texts)
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert KEY not in caplog.text


async def test_missing_key_raises_before_request_is_sent() -> None:
    with pytest.raises(ConfigError, match="JUDGE_KEY holds no key"):
        await complete(NOWHERE, api_key_env="JUDGE_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key"):
        await complete(None)


async def test_each_kind_gets_own_key_only(serve_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "ZHIPUAI", "OLLAMA", "VLLM"):
        monkeypatch.setenv(f"{name}_API_KEY", f"{name}-key")
    with serve_chat("[[4]]") as server:
        for kind in ("vllm", "sglang", "ollama", "http"):
            await complete(server.url, kind=kind)
    assert server.keys == ["Bearer VLLM-key", "Bearer none", "Bearer none", "Bearer OPENAI-key"]
    cloud = JudgeConfig(kind="ollama", model="m", base_url="https://ollama.com/v1")
    assert read_api_key(cloud) == "OLLAMA-key"


# Token probabilities

LOGPROBS_REQUEST = ChatRequest("t", {}, "m or M?", "hash", 1, top_logprobs=5)


async def test_logprobs_requested_and_recorded(serve_chat: Any, completion: Any, tmp_path: Path) -> None:
    top = [{"token": "m", "logprob": -0.02, "bytes": None}, {"token": "M", "logprob": -4.05, "bytes": None}]
    body = completion("m", "length")
    body["choices"][0]["logprobs"] = {"content": [{"token": "m", "logprob": -0.02, "top_logprobs": top}]}
    with serve_chat(lambda _: (200, body)) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m")
        for calls in (1, 0):
            async with open_judge(config, ledger=tmp_path / "l.sqlite") as judge:
                reply = await judge.query(LOGPROBS_REQUEST, lambda text: parse_logprobs(text).top_logprobs or None)
            assert (reply.value, reply.calls) == (({"m": -0.02, "M": -4.05},), calls)
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 5)
    plain = ChatRequest("t", {}, "m or M?", "hash", 1)
    keys = [request_id(request, judge="m", revision="", extra={}) for request in (LOGPROBS_REQUEST, plain)]
    assert keys[0] != keys[1]


async def test_server_that_returns_no_logprobs(serve_chat: Any) -> None:
    with serve_chat("m") as server:
        assert (await complete(server.url, LOGPROBS_REQUEST)).text == "m"


async def test_server_that_refuses_logprobs_gets_later_requests_without(serve_chat: Any, completion: Any) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "logprobs" in body:
            return 400, {"error": {"message": "logprobs are not supported with this model"}}
        return 200, completion("m")

    with serve_chat(reply) as server:
        judge = HttpJudge(JudgeConfig(kind="http", base_url=server.url, model="m"))
        assert [(await judge.complete(LOGPROBS_REQUEST, temperature=1.0)).text for _ in range(2)] == ["m", "m"]
        await judge.close()
    assert ["logprobs" in body for body in server.bodies] == [True, False, False]


async def test_prompt_above_context_window_names_window_and_setting(serve_chat: Any) -> None:
    """The message of the server names the window, or the server reports it elsewhere."""
    llama = {"code": 400, "message": "request (6030 tokens) exceeds the available context size (4096 tokens)"}
    request = ChatRequest("extraction", {}, "A long part.", "h", 64)
    for body, pages in (
        ({"error": llama | {"type": "exceed_context_size_error"}}, {}),
        ({"error": {"message": "prompt too long"}}, {"/v1/models": {"data": [{"id": "m", "max_model_len": 4096}]}}),
    ):
        reply = partial(lambda error, _: (400, error), body)
        with serve_chat(reply, pages=pages) as server, pytest.raises(PromptTooLong) as caught:
            await complete(server.url, request)
        assert "4096" in str(caught.value).replace(",", "")
        assert "lower score.extraction_chunk_tokens, or give the server a larger context window" in str(caught.value)
        assert "(prompt extraction)" in str(caught.value)
