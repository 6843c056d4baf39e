"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

Cells = Sequence[str]


def markdown_table(header: Cells, rows: Iterable[Cells]) -> list[str]:
    """Return the lines of a table, with separators and line breaks inside cells escaped; "none" if it has no rows."""
    body = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body] if body else ["none"]
