"""A real chat server on a loopback port that answers as a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answering = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class ChatServer:
    """What it was sent: each chat request's body, and the authorization header beside it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


@contextmanager
def chat_server(answer: Answering | str, *, pages: Mapping[str, Any] | None = None) -> Iterator[ChatServer]:
    """`answer`: the content of every answer, or what makes (status, reply) of a request; `pages`: of GET, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.bodies.append(body)
            served.keys.append(self.headers.get("authorization"))
            self.send(*((200, says(answer)) if isinstance(answer, str) else answer(body)))

        def do_GET(self) -> None:
            found = (pages or {}).get(self.path)
            self.send(404 if found is None else 200, found or {"error": {"message": "nothing here"}})

        def send(self, status: int, reply: Any) -> None:
            said = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket.listen(128)  # many connections at once; its own 5 would refuse some
    served = ChatServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion of 100 and 10 tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    return {"model": "m-1", "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}


@pytest.fixture
def serve_chat() -> Callable[..., AbstractContextManager[ChatServer]]:
    return chat_server


@pytest.fixture
def completion() -> Callable[..., dict[str, Any]]:
    return says


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "ZHIPUAI", "ANTHROPIC", "VLLM", "SGLANG", "OLLAMA", "MY_JUDGE"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
