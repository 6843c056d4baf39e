"""Questions that want to know how probable the tokens of their answer were."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from longreward.chat_model import ChatReply, TextWithLogprobs, parse_logprobs, with_logprobs
from longreward.judge import ChatRequest, JudgeConfig, open_judge
from longreward.judge.http_client import HttpJudge
from longreward.judge.ledger import request_id
from longreward.judge.reasoning import strip_reasoning

ASKED = ChatRequest("t", {}, "m or M?", "hash", 1, top_logprobs=5)
PLAIN = ChatRequest("t", {}, "m or M?", "hash", 1)


def given(**tops: float) -> dict[str, Any]:
    listed = [{"token": token, "logprob": value, "bytes": None} for token, value in tops.items()]
    return {"content": [{"token": "m", "logprob": -0.02, "top_logprobs": listed}]}


class Server:
    """Answers "m"; `mode` says what becomes of a request for probabilities."""

    def __init__(self, mode: str) -> None:
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append(request)
                refused = mode == "refuses" and "logprobs" in request
                choice: dict[str, Any] = {"message": {"content": "m"}, "finish_reason": "length"}
                if mode == "gives":
                    choice["logprobs"] = given(m=-0.02, M=-4.05)
                error = {"error": {"message": "logprobs are not supported with this model"}}
                body = json.dumps(error if refused else {"choices": [choice]}).encode()
                self.send_response(400 if refused else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.config = JudgeConfig(
            kind="http", base_url=f"http://127.0.0.1:{self._server.server_port}/v1", model="m", max_retries=0
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(request.param)
    yield running
    running.close()


def test_both_stand_in_one_text_and_come_apart_again() -> None:
    text = with_logprobs("m", given(m=-0.02, M=-4.05))
    assert text == '{"text": "m", "top_logprobs": [{"m": -0.02, "M": -4.05}]}'
    assert parse_logprobs(text) == TextWithLogprobs("m", ({"m": -0.02, "M": -4.05},))


@pytest.mark.parametrize("none", [None, {}, {"content": None}, {"content": [{"top_logprobs": []}]}, "x"])
def test_without_probabilities_the_text_stays_as_it_is(none: Any) -> None:
    assert with_logprobs("M", none) == "M"
    assert parse_logprobs("M") == TextWithLogprobs("M", ())


def test_a_token_that_opens_a_thought_is_no_thought() -> None:
    text = with_logprobs("m", given(**{"</think>": -3.0, "[THINK]": -9.0, "m": -0.1}))
    assert strip_reasoning(ChatReply(text, "length")) == text
    assert parse_logprobs(text).top_logprobs == ({"</think>": -3.0, "[THINK]": -9.0, "m": -0.1},)


def test_what_is_no_such_text_has_no_probabilities() -> None:
    for text in ("{", "[1]", '{"text": "m"}', '{"text": "m", "top_logprobs": 3}', '{"top_logprobs": [{"m": "x"}]}'):
        assert parse_logprobs(text) == TextWithLogprobs(text, ())


def test_the_ledger_knows_a_question_with_probabilities_from_one_without() -> None:
    def identity(question: ChatRequest) -> str:
        return request_id(question, judge="j", revision="", extra={})

    assert identity(ASKED) != identity(PLAIN)

    old = hashlib.sha256(b'["j", "", 1, {}]\nm or M?').hexdigest()
    assert identity(PLAIN) == old


@pytest.mark.parametrize("server", ["gives"], indirect=True)
async def test_probabilities_are_asked_for_and_kept_in_the_ledger(server: Server, tmp_path: Path) -> None:
    async with open_judge(server.config, ledger=tmp_path / "ledger.sqlite") as judge:
        first = await judge.query(ASKED, lambda text: parse_logprobs(text).top_logprobs or None)
        assert first.value == ({"m": -0.02, "M": -4.05},)
        plain = await judge.query(PLAIN, lambda text: text)
        assert plain.value == "m"
    assert (server.asked[0]["logprobs"], server.asked[0]["top_logprobs"]) == (True, 5)
    assert "logprobs" not in server.asked[1]
    async with open_judge(server.config, ledger=tmp_path / "ledger.sqlite") as judge:
        again = await judge.query(ASKED, lambda text: parse_logprobs(text).top_logprobs or None)
    assert (again.value, again.calls) == (first.value, 0)


@pytest.mark.parametrize("server", ["lacks"], indirect=True)
async def test_a_server_that_gives_none_answers_in_bare_text(server: Server) -> None:
    judge = HttpJudge(server.config)
    assert (await judge.complete(ASKED, temperature=1.0)).text == "m"
    await judge.close()


@pytest.mark.parametrize("server", ["refuses"], indirect=True)
async def test_a_server_that_refuses_them_is_asked_without_from_then_on(server: Server) -> None:
    judge = HttpJudge(server.config)
    assert [(await judge.complete(ASKED, temperature=1.0)).text for _ in range(2)] == ["m", "m"]
    assert ["logprobs" in request for request in server.asked] == [True, False, False]
    await judge.close()
