"""Evidence pages in a browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longreward.inspection.html_page import EvidencePage


@pytest.fixture
def open_page(open_file: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Return `open_page(page, "#address")`, which writes and opens an evidence page."""

    def open_written(page: EvidencePage, address: str = "") -> Any:
        page.write(tmp_path / "evidence.html")
        return open_file(tmp_path / "evidence.html", address)

    return open_written
