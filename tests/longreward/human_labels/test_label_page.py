"""The label page in a browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from label_sets import make_item

from longreward.human_labels.items import LabelSet, ReviewItem
from longreward.human_labels.label_page import render_label_page
from longreward.human_labels.tables import import_labels
from longreward.records import Evidence

HOSTILE = "</script><script>document.title='x'</script><img src=x onerror=alert(1)>"


@pytest.fixture
def open_page(open_file: Callable[..., Any], tmp_path: Path) -> Callable[[list[ReviewItem]], Any]:
    """Return a function that writes and opens the page of items."""

    def open_items(items: list[ReviewItem]) -> Any:
        (tmp_path / "labels.html").write_text(render_label_page(items), encoding="utf-8")
        return open_file(tmp_path / "labels.html")

    return open_items


def make_items() -> list[ReviewItem]:
    return [
        make_item("s", "support", verdict=0.5, judge="secret"),
        make_item("p", "preference", verdict=1.0, judge="secret", stratum="margin below 1"),
        make_item("c", "score", verdict=9.0, judge="secret"),
        make_item("h", "score", aspect="helpfulness", verdict=9.0, judge="secret"),
    ]


def test_labels_by_keyboard_and_mouse_are_imported(open_page: Callable[..., Any], tmp_path: Path) -> None:
    items = make_items()
    tab = open_page(items)
    assert tab.locator("#progress").text_content() == "item 1 of 4, 0 labelled"
    assert tab.locator("mark").text_content() == "Keld was founded in 1905 by Ann Lee."
    tab.keyboard.press("n")  # none
    tab.locator("#comment").fill("not stated")
    tab.locator("#next").click()
    tab.keyboard.press("b")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#item").inner_text().count("The market opened in 1931.") == 1
    tab.keyboard.press("t")
    assert tab.locator("[aria-checked=true]").text_content() == "10 (T)"
    tab.keyboard.press("7")
    assert tab.locator("#progress").text_content() == "item 3 of 4, 3 labelled"
    tab.keyboard.press("Shift+N")
    # The judge rates helpfulness without the document.
    assert "The market opened" not in tab.locator("#item").inner_text()
    tab.locator("#download").click()
    assert "Enter your name" in tab.locator("#message").text_content()
    tab.locator("#reviewer").fill("Anna Ö.")
    with tab.expect_download() as download:
        tab.locator("#download").click()
    assert download.value.suggested_filename == "labels-Anna-Ö-.jsonl"
    download.value.save_as(tmp_path / "labels.jsonl")
    labels = LabelSet({item.id: item for item in items}, ())
    imported = import_labels(tmp_path / "labels.jsonl", labels, reviewer=None, columns={}).labels
    assert [(label.item, label.reviewer, label.value, label.comment) for label in imported] == [
        ("c", "Anna Ö.", 7.0, None),
        ("p", "Anna Ö.", -1.0, None),
        ("s", "Anna Ö.", 0.0, "not stated"),
    ]


def test_labels_outlive_the_page(open_page: Callable[..., Any]) -> None:
    tab = open_page(make_items())
    tab.keyboard.press("f")
    tab.locator("#reviewer").fill("anna")
    again = open_page(make_items())
    assert again.locator("#progress").text_content() == "item 2 of 4, 1 labelled"
    assert again.locator("#reviewer").input_value() == "anna"
    again.locator("#previous").click()
    assert again.locator("[aria-checked=true]").text_content() == "full"


def test_hostile_texts_are_text(open_page: Callable[..., Any]) -> None:
    context = f"😀 {HOSTILE} the end"
    start = context.index("the end")
    item = make_item(
        "x",
        context=context,
        query=HOSTILE,
        responses=(HOSTILE,),
        statement=HOSTILE,
        evidence=(Evidence(start=start, end=len(context), text="the end"),),
    )
    tab = open_page([item])
    assert tab.locator("#item .query").text_content() == HOSTILE
    assert tab.locator("#item img").count() == 0
    assert tab.locator("mark").text_content() == "the end"  # after a character of two UTF-16 units
    assert tab.title() == "Labels · LongReward"


def test_page_is_blind() -> None:
    import base64
    import gzip

    page = render_label_page(make_items())
    data = page.partition('type="application/octet-stream">')[2].partition("</script>")[0]
    decoded = gzip.decompress(base64.b64decode(data)).decode()
    assert not [word for word in ("secret", "verdict", "margin") if word in decoded]
    assert len(json.loads(decoded)["documents"]) == 1
