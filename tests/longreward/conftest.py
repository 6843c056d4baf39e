"""Servers and a browser for tests of several packages."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, chat_server, completion_body
from policy_server import PolicyServer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(PolicyServer(**options).serving())


@pytest.fixture(scope="module")  # not longer: Playwright's event loop stays open, in which no other test can run one
def browser() -> Iterator[Any]:
    """Start the distribution's Chromium, driven by Playwright; the tests are skipped if there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        yield browser
        browser.close()


@pytest.fixture
def open_file(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return `open_file(path, "#address")`, which opens a self-contained page.

    The test fails if the page raises an error, violates its own Content-Security-Policy or requests anything.
    """
    context = browser.new_context(accept_downloads=True)
    problems: list[str] = []

    def open_tab(file: Path, address: str = "") -> Any:
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("pageerror", lambda error: problems.append(f"error: {error}"))
        tab.on("console", lambda message: problems.append(f"console: {message.text}"))
        tab.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        allowed = (file.as_uri(), "data:,", "blob:")
        tab.on("request", lambda request: None if request.url.startswith(allowed) else problems.append(request.url))
        tab.goto(file.as_uri() + address)
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield open_tab
    context.close()
    assert problems == []
