"""Render the Markdown of this project's reports as plain text for a terminal, without cutting off any value.

Headings, paragraphs, lists and tables are known, as the reports have no others. A table that does not fit the width is
written row by row, each value with the name of its column: rich would shorten the cells.
"""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from longreward.utils.console import output_width, uses_color

BOLD, RESET = "\033[1m", "\033[0m"
GAP = "  "  # between the columns of a table
NUMBER = re.compile(r"[-+\d[<–].*")


def print_markdown(text: str) -> None:
    """Print a report: rendered on a terminal, as Markdown elsewhere."""
    if sys.stdout.isatty():
        text = render_text(text, width=output_width(), color=uses_color(sys.stdout))
    print(text, end="")


def render_text(text: str, *, width: int, color: bool = False) -> str:
    """Return Markdown as text for a terminal of `width` columns."""
    lines: list[str] = []
    for is_table, group in groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            lines += _render_table(list(group), width=width, color=color)
        else:
            for line in group:
                lines += _render_line(line, width=width, color=color)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _render_line(line: str, *, width: int, color: bool) -> list[str]:
    if heading := re.fullmatch(r"#+ (.*)", line):
        return [_bold(part, color) for part in textwrap.wrap(heading.group(1), width)]
    bullet = re.match(r"\s*(?:- |\d+\. )?", line)
    indent = " " * len(bullet.group()) if bullet else ""
    wrapped = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [re.sub(r"\*\*(.+?)\*\*", lambda bold: _bold(bold.group(1), color), part) for part in wrapped or [""]]


def _render_table(rows: Sequence[str], *, width: int, color: bool) -> Iterator[str]:
    header, *body = [_split_cells(row) for row in rows if not re.fullmatch(r"[|\s:-]+", row)]
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]
    if sum(widths) + len(GAP) * (len(widths) - 1) <= width:
        # Numbers are aligned on the right, with the names of their columns.
        right = [all(not row[c] or NUMBER.fullmatch(row[c]) for row in body) for c in range(len(header))]
        for row in (header, *body):
            cells = (
                cell.rjust(size) if to_right else cell.ljust(size)
                for cell, size, to_right in zip(row, widths, right, strict=True)
            )
            line = GAP.join(cells).rstrip()
            yield _bold(line, color) if row is header else line
        return
    for row in body:
        named = [f"{name} {cell}".strip() for name, cell in zip(header[1:], row[1:], strict=True) if cell]
        # A value that fits a line stays in one piece: its spaces are replaced while the line is wrapped.
        pieces = (value.replace(" ", "\0") if len(value) <= width - len(GAP) else value for value in named)
        wrapper = textwrap.TextWrapper(
            width, initial_indent=GAP, subsequent_indent=GAP, break_long_words=False, break_on_hyphens=False
        )
        yield from textwrap.wrap(row[0], width) or [""]
        yield from (line.replace("\0", " ") for line in wrapper.wrap(GAP.join(pieces)))


def _split_cells(row: str) -> list[str]:
    """Return the cells of a row, with escaped separators restored."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def _bold(text: str, color: bool) -> str:
    return f"{BOLD}{text}{RESET}" if color else text
