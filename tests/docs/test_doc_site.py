"""The documentation site builds without a warning, contains every page, and needs nothing from the network."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from doc_blocks import ROOT

EXTERNAL = re.compile(r"(https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    return folder


class Resources(HTMLParser):
    """Collect what a browser loads for a page: scripts, styles, pictures and frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and (address := values.get("src")):
            self.addresses.append(address)
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next") and (address := values.get("href")):
            self.addresses.append(address)


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.addresses
        assert not [address for address in resources.addresses if EXTERNAL.match(address)], page
        for address in resources.addresses:
            if not address.startswith("data:") and page.name != "404.html":
                assert (page.parent / address.partition("?")[0]).is_file(), f"{page}: {address}"


def test_python_names_and_commands_are_in_the_search_index(site: Path) -> None:
    text = (site / "search" / "search_index.js").read_text(encoding="utf-8").removeprefix("var __index = ")
    locations = {entry["location"] for entry in json.loads(text)["docs"]}
    assert "reference/longreward.html#longreward.reward.long_reward.LongReward.score" in locations
    assert "command-line.html#longreward-judge-check" in locations
    assert "presets.html#smollm2-135m" in locations


def test_linked_source_files_have_pages(site: Path) -> None:
    page = site / "evidence.html"
    assert 'href="repository/benchmarks/retrieval_paraphrases.py.html"' in page.read_text(encoding="utf-8")
    assert (site / "repository" / "benchmarks" / "retrieval_paraphrases.py.html").is_file()


def test_navigation_has_every_page() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = yaml.safe_load(config[config.index("\nnav:") :])["nav"]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    missing = {page for page in pages if not page.startswith("decisions/")} - set(_leaves(navigation))
    assert not missing, "add these to `nav` in mkdocs.yml"


def _leaves(entry: str | list | dict) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [leaf for child in children for leaf in _leaves(child)]
