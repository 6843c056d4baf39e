"""The distribution's Chromium, driven by Playwright."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longreward.inspection.html_page import EvidencePage

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start the browser once; the tests are skipped if there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return `open_page(page, "#address")`, which opens a page from its file.

    The test fails if the page raises an error, violates its own Content-Security-Policy or requests anything.
    """
    context = browser.new_context(accept_downloads=True)
    problems: list[str] = []

    def open_file(page: EvidencePage, address: str = "") -> Any:
        file = tmp_path / "evidence.html"
        page.write(file)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("pageerror", lambda error: problems.append(f"error: {error}"))
        tab.on("console", lambda message: problems.append(f"console: {message.text}"))
        tab.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: (
                None if request.url.startswith((file.as_uri(), "data:,", "blob:")) else problems.append(request.url)
            ),
        )
        tab.goto(file.as_uri() + address)
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield open_file
    context.close()
    assert problems == []
