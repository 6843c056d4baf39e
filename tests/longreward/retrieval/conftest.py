"""A real server of /v1/embeddings whose vectors can be worked out by hand: one number for each of a few words."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

WORDS = ("lamp", "keeper", "bees", "harbour", "winter", "mill", "school", "query:", "passage:")
Said = tuple[int, Any]  # a status, and a body: JSON, or a text as it is


@dataclass
class EmbeddingServer:
    """What it was asked, and what it does; `say` answers in its place."""

    url: str
    latency_s: float = 0.0
    say: Callable[[dict[str, Any]], Said | None] = lambda request: None
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    peak: int = 0
    running: int = 0

    @property
    def texts(self) -> list[str]:
        """All that was embedded, in order."""
        return [text for request in self.requests for text in request["input"]]


def vector(text: str) -> list[float]:
    """How often each of WORDS stands in the text."""
    words = text.lower().replace(".", " ").split()
    return [float(words.count(word)) for word in WORDS]


def answer(request: dict[str, Any]) -> Said:
    """Vectors in reverse order: their `index` says where they belong."""
    length = request.get("dimensions", len(WORDS))
    data = [{"index": n, "embedding": vector(text)[:length]} for n, text in enumerate(request["input"])]
    return 200, {"object": "list", "model": request["model"], "data": data[::-1]}


@pytest.fixture
def embedding_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    """Serves until the test ends; no key is set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with _serving() as server:
        yield server


@contextmanager
def _serving() -> Iterator[EmbeddingServer]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                known.requests.append(request)
                known.keys.append(self.headers.get("authorization"))
                known.running += 1
                known.peak = max(known.peak, known.running)
            time.sleep(known.latency_s)
            status, body = known.say(request) or answer(request)
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
            with lock:
                known.running -= 1
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked has gone
                self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    known = EmbeddingServer(url=f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
