"""What a user sees at a pipeline's end: the comparison, where the time went, and how to look closer."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.evaluation.config import GOLD_MEASURES
from tasks.state import state_folder
from tasks.tracking import store_uri

if TYPE_CHECKING:
    from rich.table import Table

    from tasks.reproduction import StageOutcome

COMPARISON = Path("data/evaluation/table.json")
SHOWN = (*GOLD_MEASURES, "reward", "tokens")


def show(outcomes: "Iterable[StageOutcome]", *, seconds: float, comparison: Path = COMPARISON) -> None:
    """Prints it."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    if comparison.exists():
        found = json.loads(comparison.read_text(encoding="utf-8"))
        console.print(_comparison(row for row in found["rows"] if row["measure"] in SHOWN))
        console.print(f"[dim]Every measure is in {comparison.with_name('report.md')}.[/dim]")
        console.print(found["sentence"], "\n")
    console.print(_times(outcomes, seconds))
    console.print("[bold]Look closer:[/bold] `make serve` opens the Prefect UI and MLflow on this run; or one of them:")
    bin_ = Path(sys.executable).parent
    home = state_folder() / "prefect"
    console.print(f"  PREFECT_HOME={home} {bin_ / 'prefect'} server start", soft_wrap=True)
    console.print(f"  {bin_ / 'mlflow'} ui --backend-store-uri {store_uri()}", soft_wrap=True)


def _comparison(rows: Iterable[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(title="SFT against DPO on held-out documents", title_justify="left")
    for column in ("comparison", "measure"):
        table.add_column(column)
    for column in ("SFT", "DPO", "difference", "interval"):
        table.add_column(column, justify="right")
    last = None
    for row in rows:
        if last not in (None, row["comparison"]):
            table.add_section()
        change = row["difference"]
        table.add_row(
            "" if last == row["comparison"] else row["comparison"],
            row["measure"],
            f"{row['sft']['value']:.3f}",
            f"{row['dpo']['value']:.3f}",
            f"{change['value']:+.3f}",
            f"{change['low']:+.3f} … {change['high']:+.3f}",
        )
        last = row["comparison"]
    return table


def _times(outcomes: "Iterable[StageOutcome]", seconds: float) -> "Table":
    from rich.table import Table

    table = Table(title="Time", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("")
    for outcome in outcomes:
        table.add_row(outcome.stage, f"{outcome.seconds:.1f}", "" if outcome.ran else "was up to date")
    table.add_section()
    table.add_row("all", f"{seconds:.1f}", "")
    return table
