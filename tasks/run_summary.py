"""What a user sees at a pipeline's end: the comparison, where the time went, and how to look closer."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.evaluation.comparison import NEUTRAL_MEASURES
from longreward.evaluation.config import GOLD_MEASURES
from longreward.tasks.mlflow_comparison import corrected_p
from longreward.tasks.tracking.store import TRACKING_URI, is_server, store_uri
from longreward.utils.redaction import redact

if TYPE_CHECKING:
    from rich.table import Table

    from longreward.tasks.pipeline_tasks import StageResult

COMPARISON = Path("data/evaluation/table.json")
SHOWN = (*GOLD_MEASURES, "reward", "tokens", "short")


def show(
    outcomes: "Iterable[StageResult]", *, seconds: float, comparison: Path = COMPARISON, width: int | None = None
) -> None:
    """Prints it; the comparison only where `evaluate` was among the stages. `width` is the terminal's by default."""
    from rich.console import Console

    console = Console(width=width or (None if sys.stdout.isatty() else 110), highlight=False)
    outcomes = list(outcomes)
    if comparison.exists() and any(outcome.stage == "evaluate" for outcome in outcomes):
        found = json.loads(comparison.read_text(encoding="utf-8"))
        console.print(_comparison(row for row in found["rows"] if row["measure"] in SHOWN))
        console.print(f"[dim]Every measure is in {comparison.with_name('report.md')}.[/dim]")
        console.print(found["sentence"], "\n")
    console.print(_times(outcomes, seconds))
    console.print(
        "[bold]Look closer:[/bold] `longreward serve` opens the Prefect UI and MLflow on it; or MLflow alone:"
    )
    console.print(f"  {_open_mlflow(Path(sys.executable).parent, store_uri())}", soft_wrap=True)
    console.print("[bold]Against an earlier run:[/bold] `longreward compare last~1 last`, or two runs' names")


def _open_mlflow(bin_: Path, uri: str) -> str:
    """How to look at the runs; a login is neither shown nor put where `ps` shows it."""
    if is_server(uri):
        return f"MLflow: {redact(uri)}"
    if redact(uri) == uri:
        return f"{bin_ / 'mlflow'} ui --backend-store-uri {uri}"
    return f'MLFLOW_BACKEND_STORE_URI="${TRACKING_URI}" {bin_ / "mlflow"} ui'


def _comparison(rows: Iterable[dict[str, Any]]) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        title="SFT against DPO on held-out documents", title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False
    )
    for column in ("comparison", "measure"):
        table.add_column(column, no_wrap=True)
    for column in ("SFT", "DPO", "difference", "interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    last = None
    for row in rows:
        if last not in (None, row["comparison"]):
            table.add_section()
        change, digits = row["difference"], 1 if row["measure"] in NEUTRAL_MEASURES else 3
        table.add_row(
            "" if last == row["comparison"] else row["comparison"],
            row["measure"],
            f"{row['sft']['value']:.{digits}f}",
            f"{row['dpo']['value']:.{digits}f}",
            f"{change['value']:+.{digits}f}",
            f"{change['low']:+.{digits}f} … {change['high']:+.{digits}f}",
            corrected_p(row["measure"], change),
        )
        last = row["comparison"]
    return table


def _times(outcomes: "Iterable[StageResult]", seconds: float) -> "Table":
    table = _table("Time")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("")
    for outcome in outcomes:
        table.add_row(outcome.stage, f"{outcome.seconds:.1f}", "" if outcome.ran else "was up to date")
    table.add_section()
    table.add_row("all", f"{seconds:.1f}", "")
    return table


def _table(title: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(title=title, title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False)
