"""A plan as people read it."""

from longreward.planning.plan import ProjectPlan, StagePlan, TemplatePlan
from longreward.planning.reply_stats import Range


def print_plan(plan: ProjectPlan) -> None:
    """A table a stage on the screen, and below them what must be known to read them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.width = max(console.width, WIDTH)
    tables = []
    for stage in plan.stages:
        table = Table(title=title(stage), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("questions", no_wrap=True)
        for name in ("calls", "answered", "prompt tokens", "answer tokens", plan.currency):
            table.add_column(name, justify="right", no_wrap=True)
        for line in stage.lines:
            table.add_row(_name(line), *_cells(line, f"{line.answered:,}"))
        table.add_section()
        answered = sum(line.answered for line in stage.lines)
        table.add_row("all", *_cells(stage, f"{answered:,}"), style="bold")
        tables.append(table)
    with console.capture() as drawn:  # printed by print, which leaves a reader that went away to the command
        for table in tables:
            console.print(table)
    print(drawn.get(), end="")
    for note in plan.notes:
        print(f"- {note}")


def title(stage: StagePlan) -> str:
    """One line on what is to be done and how long it takes."""
    scaled = f", counted on {stage.looked_at:,} of them" if stage.looked_at < stage.prompts else ""
    done = f", {stage.complete:,} complete already" if stage.complete else ""
    prompts = f"{stage.prompts:,} prompts{scaled}{done}"
    return f"{stage.stage}: {prompts}, {stage.responses:,} responses, about {span(stage.seconds)}"


def format_remaining(stage: StagePlan, currency: str) -> str:
    """One sentence on what is complete and what the others need."""
    if stage.calls.high == 0:
        return f"all {stage.prompts:,} prompts are complete"
    about = "about " if stage.looked_at < stage.prompts else ""
    done = f"{about}{stage.complete:,} of {stage.prompts:,} prompts are complete"
    return f"{done}; the rest needs about {format_needs(stage, currency)}"


def format_needs(stage: StagePlan, currency: str) -> str:
    """What is still to be asked, on one line."""
    cost = f", {_one_line(money(stage.money))} {currency}" if stage.money is not None else ""
    tokens = stage.prompt_tokens + stage.completion_tokens
    return f"{_one_line(number(stage.calls))} calls, {_one_line(number(tokens))} tokens{cost}"


def number(value: Range) -> str:
    """`1,200`, or below it `600–2,400` where it is not known."""
    if value.known:
        return short(value.expected)
    return f"{short(value.expected)}\n{short(value.low)}–{short(value.high)}"


def short(value: float) -> str:
    """Whole up to a hundred thousand, then with a letter and three or more digits."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if value >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:,.0f}{letter}" if value / unit >= 100 else f"{value / unit:,.1f}{letter}"
    return f"{value:,.0f}"


def money(value: Range | None) -> str:
    """With cents; `?` where a price is not known."""
    if value is None:
        return "?"
    if value.known:
        return f"{value.expected:,.2f}"
    return f"{value.expected:,.2f}\n{value.low:,.2f}–{value.high:,.2f}"


def _one_line(cell: str) -> str:
    expected, *between = cell.split("\n")
    return f"{expected} ({between[0]})" if between else expected


def span(seconds: Range) -> str:
    """A time in its unit."""
    unit, name = next(((unit, name) for unit, name in UNITS if seconds.expected >= unit), UNITS[-1])
    return f"{seconds.expected / unit:,.1f} {name} ({seconds.low / unit:,.1f} to {seconds.high / unit:,.1f})"


def _name(line: TemplatePlan) -> str:
    return line.template if line.template == line.dimension else f"{line.dimension}: {line.template}"


def _cells(of: TemplatePlan | StagePlan, answered: str) -> tuple[str, ...]:
    return (number(of.calls), answered, number(of.prompt_tokens), number(of.completion_tokens), money(of.money))


WIDTH = 104  # columns, without which numbers would be cut
UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
