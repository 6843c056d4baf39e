"""A comparison of two runs as Markdown, as plain data, and for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from longreward.evaluation.comparison import NEUTRAL
from longreward.evaluation.run_comparison import Change
from longreward.evaluation.statistics import format_p
from longreward.tasks.comparison import Comparison, Difference, MovedPrompt

if TYPE_CHECKING:
    from rich.table import Table

Cells = tuple[str, ...]
MARKS = {1: "better", -1: "worse", 0: ""}
NAMES = {"sft": "SFT model", "dpo": "DPO model"}
SHOWN_CHARACTERS = 400
NONE = "–"


def markdown(comparison: Comparison) -> str:
    """The whole comparison."""
    first, second = comparison.first.name, comparison.second.name
    parts = [f"# {first} and {second}", "", comparison.shared.sentence, *comparison.warnings]
    for title, rows in (("Settings", comparison.params), ("Data and code", comparison.data)):
        parts += ["", f"## {title} that differ", "", *markdown_table(("", first, second), difference_cells(rows))]
    for model, changes in _by_model(comparison.changes):
        header = ("decoding", "measure", first, second, "difference", "interval", "p", "")
        parts += ["", f"## {NAMES[model]}", "", *markdown_table(header, map(change_cells, changes))]
    parts += ["", f"## {_moved_title(comparison)}"]
    for one in comparison.moved:
        parts += ["", f"**{one.id}** of {one.document}, {_moved(one)}: {_one_line(one.query)}", ""]
        parts += [f"- {first}: {_one_line(one.first_answer)}", f"- {second}: {_one_line(one.second_answer)}"]
    return "\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as plain data; a difference is the second minus the first."""
    runs = {
        side: {"name": run.name, "id": run.id, "evaluation": run.evaluation}
        for side, run in (("first", comparison.first), ("second", comparison.second))
    }
    found = {
        name: [asdict(one) for one in getattr(comparison, name)] for name in ("params", "data", "changes", "moved")
    }
    known: dict[str, Any] = {"shared": asdict(comparison.shared), "warnings": list(comparison.warnings)}
    known |= {name: getattr(comparison, name) for name in ("measure", "decoding", "higher", "lower")}
    return runs | known | found


def show(comparison: Comparison) -> None:
    """Prints it for a terminal."""
    import sys

    from rich.console import Console
    from rich.markup import escape

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    first, second = comparison.first.name, comparison.second.name
    with console.capture() as drawn:  # printed by print, which leaves a reader that went away to the command
        for title, rows in (("Settings", comparison.params), ("Data and code", comparison.data)):
            if rows:
                console.print(_table(f"{title} that differ", ("", first, second), difference_cells(rows)), "")
            else:
                console.print(f"{title}: the same\n")
        for model, changes in _by_model(comparison.changes):
            header = ("decoding", "measure", first, second, "difference", "interval", "p", "")
            console.print(_table(f"{NAMES[model]} on held-out prompts", header, map(change_cells, changes)), "")
        console.print(comparison.shared.sentence)
        for warning in comparison.warnings:
            console.print(f"[yellow]{escape(warning)}[/yellow]")
        console.print(f"\n[italic]{_moved_title(comparison)}[/italic]")
        for one in comparison.moved:
            console.print(f"\n[bold]{escape(one.id)}[/bold] {_moved(one)}  {escape(_one_line(one.query))}")
            for name, answer in ((first, one.first_answer), (second, one.second_answer)):
                console.print(f"  [dim]{escape(name)}:[/dim] {escape(_one_line(answer))}")
    print(drawn.get(), end="")


def change_cells(change: Change) -> Cells:
    """One measure as text: decoding, measure, first, second, difference, interval, corrected p, better or worse."""
    digits = 1 if change.measure in NEUTRAL else 3
    moved = change.difference
    return (
        change.decoding,
        change.measure,
        f"{change.first.value:.{digits}f}",
        f"{change.second.value:.{digits}f}",
        f"{moved.value:+.{digits}f}",
        f"{moved.low:+.{digits}f} … {moved.high:+.{digits}f}",
        corrected_p(change.measure, asdict(moved)),
        MARKS[change.gain],
    )


def corrected_p(measure: str, difference: Mapping[str, Any]) -> str:
    """Return the corrected p-value as text; empty for a neutral measure and in tables of versions without it."""
    p = difference.get("p_corrected")
    return "" if measure in NEUTRAL or p is None else format_p(p)


def difference_cells(rows: Iterable[Difference]) -> list[Cells]:
    """One setting or hash as text; hashes and commits cut to what tells them apart."""
    return [(row.name, *(NONE if value is None else value for value in (row.first, row.second))) for row in rows]


def markdown_table(header: Sequence[str], rows: Iterable[Cells]) -> list[str]:
    """Lines of a Markdown table; "none" where it would be empty."""
    body = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body] if body else ["none"]


def _by_model(changes: Iterable[Change]) -> list[tuple[str, list[Change]]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.model, []).append(change)
    return list(found.items())


def _moved_title(comparison: Comparison) -> str:
    by = f"{comparison.measure} at {comparison.decoding}"
    if not comparison.higher and not comparison.lower:
        return f"No shared prompt moved, by {by}"
    return f"Prompts that moved most, by {by} (higher for {comparison.higher}, lower for {comparison.lower})"


def _moved(one: MovedPrompt) -> str:
    return f"{one.before:.3f} → {one.after:.3f}"


def _one_line(text: str | None) -> str:
    if text is None:
        return "(not kept)"
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def _table(title: str, header: Sequence[str], rows: Iterable[Cells]) -> "Table":
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False)
    for place, column in enumerate(header):
        table.add_column(escape(column), overflow="fold", justify="right" if len(header) > 3 and place > 1 else "left")
    last = ""
    for number, row in enumerate(rows):
        if number and row[0] != last and len(header) > 3:
            table.add_section()
        shown = ("", *row[1:]) if row[0] == last else row
        last = row[0]
        table.add_row(*(escape(cell) for cell in shown))
    return table
