"""Reports as text for terminals of different widths."""

import re

import pytest

from longreward.utils.markdown import markdown_table
from longreward.utils.markdown_text import render_text

HEADER = ("decoding", "measure", "brave-otter", "calm-heron", "difference", "interval", "p", "")
ROWS = [
    ("greedy", "helpfulness", "8.833", "9.250", "+0.417", "[-0.119, +0.952]", "<0.001", "better"),
    ("t1 against t0.5", "exact|recall", "0.500", "–", "", "", "", ""),
]
PAGE = "\n".join(
    [
        "# brave-otter and calm-heron",
        "",
        "Paired by document on the 16 held-out prompts that both runs answered.",
        "",
        "## DPO model",
        "",
        *markdown_table(HEADER, ROWS),
        "",
        "**0-1** of a.txt: Who?",
        "- an answer of some words " * 4,
    ]
)


def test_wide_table_is_aligned() -> None:
    lines = render_text(PAGE, width=120).splitlines()
    assert lines[0] == "brave-otter and calm-heron"
    assert lines[6:9] == [
        "decoding         measure       brave-otter  calm-heron  difference          interval       p",
        "greedy           helpfulness         8.833       9.250      +0.417  [-0.119, +0.952]  <0.001  better",
        "t1 against t0.5  exact|recall        0.500           –",
    ]


def test_narrow_table_is_written_row_by_row() -> None:
    lines = render_text(PAGE, width=60).splitlines()
    assert lines[7:10] == [
        "greedy",
        "  measure helpfulness  brave-otter 8.833  calm-heron 9.250",
        "  difference +0.417  interval [-0.119, +0.952]  p <0.001",
    ]


def test_value_longer_than_line_breaks_between_words() -> None:
    table = markdown_table(("", "pipeline-20261127"), [("git commit", "18e83a36c14551b0f9286b38dafa47e124240505")])
    assert render_text("\n".join(table), width=44).splitlines() == [
        "git commit",
        "  pipeline-20261127",
        "  18e83a36c14551b0f9286b38dafa47e124240505",
    ]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_value_is_lost_and_no_line_is_too_long(width: int) -> None:
    text = render_text(PAGE, width=width)
    assert max(map(len, text.splitlines())) <= width
    for row in ROWS:
        for cell in row:
            assert cell in text
    assert text.count("an answer of some words") + text.count("an answer of some\n") >= 3
    assert "**" not in text


def test_color_only_on_request() -> None:
    assert "\033" not in render_text(PAGE, width=80)
    colored = render_text(PAGE, width=80, color=True)
    assert "\033[1m0-1\033[0m of a.txt: Who?" in colored
    assert re.sub(r"\033\[\dm", "", colored) == render_text(PAGE, width=80)
