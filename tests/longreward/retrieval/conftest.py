"""An HTTP server of /v1/embeddings whose vectors count a few words, so that expected values are easy to compute."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from http_server import JsonHandler, http_server

VOCABULARY = ("lamp", "keeper", "bees", "harbour", "winter", "mill", "school", "query:", "passage:")
HttpResponse = tuple[int, Any]  # a status, and a body: JSON, or a text as it is


@dataclass
class EmbeddingServer:
    """The requests that the server received; `respond` may replace its response."""

    url: str
    latency_s: float = 0.0
    respond: Callable[[dict[str, Any]], HttpResponse | None] = lambda request: None
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    peak: int = 0
    running: int = 0

    @property
    def texts(self) -> list[str]:
        """Return all embedded texts in order."""
        return [text for request in self.requests for text in request["input"]]


def vector(text: str) -> list[float]:
    """Count each of WORDS in the text."""
    vocabulary = text.lower().replace(".", " ").split()
    return [float(vocabulary.count(word)) for word in VOCABULARY]


def default_response(request: dict[str, Any]) -> HttpResponse:
    """Return the vectors in reverse order, with their `index`."""
    length = request.get("dimensions", len(VOCABULARY))
    data = [{"index": n, "embedding": vector(text)[:length]} for n, text in enumerate(request["input"])]
    return 200, {"object": "list", "model": request["model"], "data": data[::-1]}


@pytest.fixture
def embedding_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    """Run a server without an API key until the test ends."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with _serving() as server:
        yield server


@contextmanager
def _serving() -> Iterator[EmbeddingServer]:
    lock = threading.Lock()

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            request = self.read_json()
            with lock:
                state.requests.append(request)
                state.keys.append(self.headers.get("authorization"))
                state.running += 1
                state.peak = max(state.peak, state.running)
            time.sleep(state.latency_s)
            status, body = state.respond(request) or default_response(request)
            with lock:
                state.running -= 1
            self.send(body, status)

    with http_server(Handler) as address:
        state = EmbeddingServer(url=f"{address}/v1")
        yield state
