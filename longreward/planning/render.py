"""Plans as text."""

import textwrap
from collections.abc import Callable

from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES
from longreward.planning.estimate import Requests, StagePlan
from longreward.planning.plan import ProjectPlan
from longreward.planning.reply_stats import Range
from longreward.utils.console import output_width
from longreward.utils.plurals import pluralize

TABLE_WIDTH = 200  # columns; rich would truncate numbers if a table did not fit
SINGLE_LINE_WIDTH = 80  # columns from which "faithfulness: statements" has one line
TIME_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def print_plan(plan: ProjectPlan) -> None:
    """Print a table for each stage, and the notes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = output_width()
    console = Console(width=max(width, TABLE_WIDTH))
    separator = " " if width >= SINGLE_LINE_WIDTH else "\n  "
    # Captured and printed with print(), so that a closed pipe raises BrokenPipeError as in the other commands.
    with console.capture() as output:
        for stage in plan.stages:
            # As the title of the table it would be wrapped at the table's width too.
            console.print(textwrap.fill(format_title(stage), width), style="table.title", highlight=False)
            table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
            table.add_column("requests", no_wrap=True)
            for name in ("calls", "cached", "prompt\ntokens", "reply\ntokens", plan.currency):
                table.add_column(name, justify="right", no_wrap=True)
            for template, requests in stage.templates.items():
                dimension = next(name for name, templates in DIMENSION_TEMPLATES.items() if template in templates)
                suffix = "" if template == dimension else f":{separator}{template}"
                table.add_row(f"{dimension}{suffix}", *_cells(requests))
            table.add_section()
            table.add_row("all", *_cells(stage.total), style="bold")
            console.print(table, "")
    print("\n".join(line.rstrip() for line in output.get().splitlines()))
    for note in plan.notes:
        print(textwrap.fill(note, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False))


def format_title(stage: StagePlan) -> str:
    """Return one line with the size and the duration of a stage."""
    counted = f", counted on {stage.counted_prompts:,} of them" if stage.counted_prompts < stage.prompts else ""
    complete = f", {stage.complete_prompts:,} complete already" if stage.complete_prompts else ""
    return (
        f"{stage.stage}: {pluralize(stage.prompts, 'prompt')}{counted}{complete}, "
        f"{pluralize(stage.responses, 'response')}, about {format_seconds(stage.seconds)}"
    )


def format_remaining(stage: StagePlan, currency: str) -> str:
    """Return a sentence on the number of complete prompts and the cost of the others."""
    if stage.total.calls.high == 0:
        return f"all {stage.prompts:,} prompts are complete"
    about = "about " if stage.counted_prompts < stage.prompts else ""
    complete = f"{about}{stage.complete_prompts:,} of {stage.prompts:,} prompts are complete"
    return f"{complete}; the rest needs about {format_needs(stage, currency)}"


def format_needs(stage: StagePlan, currency: str) -> str:
    """Return the remaining calls, tokens and money of a stage on one line."""
    total = stage.total
    cost = f", {_on_one_line(format_money(total.money))} {currency}" if total.money is not None else ""
    tokens = total.prompt_tokens + total.completion_tokens
    return f"{_on_one_line(format_count(total.calls))} calls, {_on_one_line(format_count(tokens))} tokens{cost}"


def format_count(value: Range) -> str:
    """Return `1,200`, with `600–2,400` on a second line if the number is uncertain."""
    return _format_range(value, _abbreviate)


def format_money(value: Range | None) -> str:
    """Return an amount with two decimals, or `?` if the price is unknown."""
    return "?" if value is None else _format_range(value, "{:,.2f}".format)


def _format_range(value: Range, format_number: Callable[[float], str]) -> str:
    expected = format_number(value.expected)
    return expected if value.is_exact else f"{expected}\n{format_number(value.low)}–{format_number(value.high)}"


def format_seconds(seconds: Range) -> str:
    """Return a duration with its range in the largest suitable unit."""
    size, unit = next(((size, unit) for size, unit in TIME_UNITS if seconds.expected >= size), TIME_UNITS[-1])
    return f"{seconds.expected / size:,.1f} {unit} ({seconds.low / size:,.1f} to {seconds.high / size:,.1f})"


def _abbreviate(value: float) -> str:
    """Return integers up to ten thousand, then k, M or G with at least two digits."""
    for threshold, unit, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= threshold:
            scaled = value / unit
            return f"{scaled:,.0f}{suffix}" if scaled >= 100 else f"{scaled:,.1f}{suffix}"
    return f"{value:,.0f}"


def _on_one_line(cell: str) -> str:
    expected, *limits = cell.split("\n")
    return f"{expected} ({limits[0]})" if limits else expected


def _cells(plan: Requests) -> tuple[str, ...]:
    return (
        format_count(plan.calls),
        f"{plan.cached:,.0f}",
        format_count(plan.prompt_tokens),
        format_count(plan.completion_tokens),
        format_money(plan.money),
    )
