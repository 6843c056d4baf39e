"""Fixtures of servers for tests of several packages."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from chat_server import ChatServer, chat_server, completion_body
from policy_server import PolicyServer


@pytest.fixture
def serve_chat() -> Callable[..., AbstractContextManager[ChatServer]]:
    """Return `serve_chat(reply, …)`, which serves chat completions on a loopback port."""
    return chat_server


@pytest.fixture
def completion() -> Callable[..., dict[str, Any]]:
    """Return `completion(content, …)`, which makes the body of a chat completion."""
    return completion_body


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the API keys of judges from the environment."""
    for name in ("OPENAI", "ZHIPUAI", "ANTHROPIC", "VLLM", "SGLANG", "OLLAMA", "MY_JUDGE"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)


@pytest.fixture
def policy_server() -> Iterator[Callable[..., PolicyServer]]:
    """Return a function that starts a server: `policy_server(ignores_n=True, …)`."""
    started: list[PolicyServer] = []

    def start(**options: Any) -> PolicyServer:
        started.append(PolicyServer(**options))
        return started[-1]

    yield start
    for server in started:
        server.close()
