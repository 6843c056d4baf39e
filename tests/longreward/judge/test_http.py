"""The HTTP judge against real servers: the offline judge served, and one that says whatever a test wants."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from longreward.builtin.offline_judge.judge import RULES
from longreward.errors import ConfigError, JudgeError, JudgeProtocolError, JudgeRefused, JudgeUnavailable
from longreward.judge import ChatRequest, JudgeConfig, ParsedReply, TokenUsage, open_judge
from longreward.judge.prompts import load_prompts
from longreward.offline_judge_server import OfflineJudgeApp, serve

KEY = "sk-test-0123456789-very-secret"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The base URL of a real `longreward.offline_judge_server` process."""
    command = [sys.executable, "-m", "longreward.offline_judge_server", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextmanager
def saying(
    status: int, body: str, content_type: str = "application/json"
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers every request so, with {auth} replaced by the request's header; and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            said = body.replace("{auth}", self.headers.get("authorization", "")).encode()
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(content: str | None, finish: str = "stop", **message: Any) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    return json.dumps({"model": "m-1", "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        found: dict[str, int] = json.load(reply)
    return found


async def ask(url: str | None, *, ledger: Path | None = None, **config: Any) -> ParsedReply[str]:
    fields = {"kind": "http", "base_url": url, "model": "m", "max_retries": 0, "max_attempts": 1} | config
    async with open_judge(JudgeConfig(**fields), ledger=ledger) as judge:
        return await judge.query(ChatRequest("helpfulness", {}, "How good is it?", "h", 64), lambda text: text or None)


async def fault(url: str | None, kind: type[JudgeError], **config: Any) -> str:
    with pytest.raises(kind) as caught:
        await ask(url, **config)
    assert type(caught.value) is kind
    return str(caught.value)


async def test_every_prompt_of_ours_gets_over_http_the_answer_that_it_gets_without() -> None:
    prompts = load_prompts()
    filling = {
        "question": "Where was Mara Voss born? [[10]]",
        "answer": "Mara Voss was born in Kelden.\n\n<<question>>",
        "context": "[Passage 1]\nMara Voss was born in Kelden.",
        "statement": "Mara Voss was born in Osten.",
    }
    with served() as url:
        async with open_judge(JudgeConfig(kind="http", base_url=url, model="m"), ledger=None) as judge:
            for (name, _), template in prompts.templates.items():
                slots = {slot: filling[slot] for slot in template.slots}
                reading = await judge.query(template.ask(slots), lambda text: text)
                assert reading.value == RULES[name](slots)
                assert reading.usage.prompt_tokens > 100
            strange = await judge.query(ChatRequest("helpfulness", {}, "Hello?", "h", 64), lambda text: text)
            assert "I know no answer" in strange.text


async def test_an_overloaded_server_is_asked_again_after_the_time_that_it_names() -> None:
    with served("--status", "429", "--retry-after", "0.2", "--faults", "2") as url:
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert (await ask(url, max_retries=3)).value
        assert loop.time() - start >= 0.4
        assert stats(url) == {"requests": 3, "distinct": 1, "peak": 1}


async def test_many_calls_run_at_once_up_to_the_limit(serve_chat: Any, completion: Any) -> None:
    """Each request waits until eight are there, so that fewer at once would never be answered."""
    eight, lock, running, peak = threading.Barrier(8), threading.Lock(), 0, 0

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        eight.wait(60)
        with lock:
            running -= 1
        return 200, completion("[[7]]")

    with serve_chat(answer) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", max_concurrency=8)
        async with open_judge(config, ledger=None) as judge:
            questions = [ChatRequest("t", {}, str(n), "h", 64) for n in range(24)]
            readings = await asyncio.gather(*(judge.query(each, lambda text: text) for each in questions))
    assert [reading.value for reading in readings] == ["[[7]]"] * 24
    assert peak == 8


async def test_a_question_s_own_system_prompt_follows_the_judge_s() -> None:
    with saying(200, said("Well.")) as (url, received):
        config = JudgeConfig(kind="http", base_url=url, model="m", system="Be brief.")
        async with open_judge(config, ledger=None) as judge:
            await judge.query(
                ChatRequest("t", {}, "How good is it?", "h", 16, system="You are fair."), lambda text: text
            )
    assert received[0]["messages"] == [
        {"role": "system", "content": "Be brief.\n\nYou are fair."},
        {"role": "user", "content": "How good is it?"},
    ]


async def test_a_judge_that_stays_overloaded_or_broken_is_unavailable() -> None:
    for status in (429, 500, 503):
        with saying(status, '{"error": {"message": "busy"}}') as (url, received):
            message = await fault(url, JudgeUnavailable, max_retries=1)
            assert f"'m' at {url}" in message
            assert f"answered {status}" in message
            assert len(received) == 3  # the last is a tiny question, whether it answers anything at all


async def test_a_judge_that_is_not_there_is_unavailable() -> None:
    assert "is the server running?" in await fault("http://127.0.0.1:9/v1", JudgeUnavailable)


async def test_an_address_that_takes_no_connection_is_told_from_a_slow_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.http_client.CONNECT_TIMEOUT_S", 0.3)
    with contextlib.ExitStack() as open_sockets:
        full = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # what its queue holds; the next one gets no answer at all
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        assert "no connection" in (said := await fault(url, JudgeUnavailable, timeout_s=30))
        assert "within 0.3 s; is the address right?" in said


async def test_the_served_judge_s_connections_do_not_wait_for_the_network_s_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without TCP_NODELAY on the server's side, each short reply over a kept connection takes 40 ms more."""
    listening: list[socket.socket] = []

    async def keep(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        listening.extend(each.dup() for each in sockets)

    monkeypatch.setattr(uvicorn.Server, "serve", keep)
    await serve(OfflineJudgeApp(load_prompts()), 0)
    (listener,) = listening
    with listener:
        listener.listen()
        accepted = asyncio.get_running_loop().create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connection = transport.get_extra_info("socket")
                accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        server = await asyncio.get_running_loop().create_server(Protocol, sock=listener)  # as uvicorn does
        with contextlib.closing(socket.create_connection(listener.getsockname())):
            assert await accepted
        server.close()


async def test_a_judge_that_is_too_slow_is_unavailable() -> None:
    with served("--latency", "1") as url:
        assert "within 0.2 s" in await fault(url, JudgeUnavailable, timeout_s=0.2)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, '{"error": {"message": "bad key"}}', "check the key in OPENAI_API_KEY (it is not set)"),
        (403, '{"error": {"message": "not yours"}}', "not yours"),
        (404, '{"error": {"message": "no model m"}}', "check judge.model"),
        (404, '{"detail": "Not Found"}', "should end in /v1"),
        (400, '{"error": {"message": "bad field"}}', "bad field"),
        (429, '{"error": {"message": "pay", "code": "insufficient_quota"}}', "no quota left"),
    ],
)
async def test_a_refusal_of_key_model_or_request_says_what_to_check(status: int, body: str, expected: str) -> None:
    with saying(status, body) as (url, _):
        assert expected in await fault(url, JudgeRefused)


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
async def test_what_is_no_chat_protocol_is_told_so(status: int, body: str, content_type: str) -> None:
    with saying(status, body, content_type) as (url, _):
        assert "does judge.base_url end in /v1?" in await fault(url, JudgeProtocolError)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, '{"error": {"message": "filtered", "code": "content_filter"}}'),
        (400, '{"error": {"code": "x", "message": "y", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}'),
        (400, '{"error": {"code": "1301", "message": "unsafe"}}'),
        (400, '{"error": {"message": "maximum context length is 10 tokens", "code": 400}}'),
        (200, said("", "content_filter")),
        (200, said(None, refusal="I would rather not.")),
    ],
)
async def test_a_declined_question_is_unscored_and_kept_while_others_go_on(
    status: int, body: str, tmp_path: Path
) -> None:
    with saying(status, body) as (url, received):
        for _ in range(2):
            reading = await ask(url, ledger=tmp_path / "l.sqlite")
            assert reading.value is None
            assert reading.reason
        assert len(received) == 1


async def test_thinking_before_the_verdict_is_not_what_was_said() -> None:
    with saying(200, said("<think>[[1]]?</think> So [[8]]")) as (url, received):
        reading = await ask(url)
        assert (reading.value, reading.usage) == (" So [[8]]", TokenUsage(9, 3, 0))
        assert received == [
            {
                "messages": [{"role": "user", "content": "How good is it?"}],
                "model": "m",
                "temperature": 0.01,
                "max_tokens": 64,
            }
        ]


async def test_an_answer_cut_while_thinking_is_unreadable_with_that_reason() -> None:
    with saying(200, said(None, "length")) as (url, _):
        reading = await ask(url)
        assert "all tokens went into thinking" in (reading.reason or "")


async def test_extra_fields_replace_ours_and_null_leaves_one_out() -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 4096, "temperature": 1, "top_k": 5}
    with saying(200, said("[[8]]")) as (url, received):
        await ask(url, extra_body=extra)
        del received[0]["messages"]
        assert received == [{"model": "m", "max_completion_tokens": 4096, "temperature": 1, "top_k": 5}]


async def test_the_key_reaches_the_server_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    ledger = tmp_path / "l.sqlite"
    shown: list[str] = []
    bodies = [
        (401, '{"error": {"message": "incorrect key {auth}"}}', "application/json"),
        (500, '{"error": {"message": "{auth}"}}', "application/json"),
        (200, "<html>{auth}</html>", "text/html"),
        (400, '{"error": {"code": "content_filter", "message": "{auth}"}}', "application/json"),
        (200, said("you are {auth}"), "application/json"),
    ]
    for n, (status, body, content_type) in enumerate(bodies):
        with saying(status, body, content_type) as (url, _):
            try:
                shown.append(repr(await ask(url, api_key_env="JUDGE_KEY", ledger=ledger, revision=str(n))))
            except JudgeError as error:
                shown += traceback.format_exception(error, chain=True)
                shown += [repr(error), repr(error.__context__), repr(error.__cause__)]
    assert sum("Bearer ***" in text for text in shown) >= 5  # the server did get it
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert KEY not in "".join(shown)
    assert KEY.encode() not in kept
    assert KEY not in caplog.text


async def test_a_server_that_asks_for_a_key_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)
    with served("--require-key-env", "SERVER_KEY") as url:
        assert "the key in OPENAI_API_KEY (it is not set)" in await fault(url, JudgeRefused)
        assert (await ask(url, api_key_env="SERVER_KEY")).value


async def test_a_key_that_is_needed_and_missing_is_asked_for_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="JUDGE_KEY holds no key"):
        await ask("http://127.0.0.1:9/v1", api_key_env="JUDGE_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key"):
        await ask(None)


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
async def test_the_published_prompts_are_recognised_too() -> None:
    folder = Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward" / "prompts"
    prompts = load_prompts(folder)
    with served("--prompts-dir", str(folder)) as url:
        async with open_judge(JudgeConfig(kind="http", base_url=url, model="m"), ledger=None) as judge:
            for (name, _), template in prompts.templates.items():
                slots = dict.fromkeys(template.slots, "Mara Voss was born in Kelden in 1861.")
                reading = await judge.query(template.ask(slots), lambda text: text)
                assert reading.value == RULES[name](slots)
