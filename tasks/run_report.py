"""Reports of a pipeline run: the note at the top of its page in MLflow, and the summary that a terminal shows."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import LongRewardError
from longreward.evaluation.config import GOLD_MEASURES
from longreward.evaluation.report import CHANGE_HEADER, change_cells, value_cells
from longreward.tasks.mlflow_comparison import COMMIT_TAG, compare, difference_cells
from longreward.tasks.tracking.history import (
    TABLE,
    PastRun,
    read_artifact,
    read_run,
    run_seconds,
    run_tags,
    stage_runs,
)
from longreward.tasks.tracking.registry import CHAMPION_BEFORE, CHAMPION_NOW
from longreward.tasks.tracking.run import DVC_TAG
from longreward.tasks.tracking.run_hierarchy import ERROR_TAG, OVERRIDES_TAG, PARENT_TAG, STAGE_TAG
from longreward.tasks.tracking.store import TRACKING_URI, is_server, store_uri
from longreward.utils.console import output_width
from longreward.utils.markdown import Cells, markdown_table
from longreward.utils.progress import format_duration
from longreward.utils.redaction import redact

if TYPE_CHECKING:
    from mlflow.entities import Run
    from rich.console import Console
    from rich.table import Table

    from longreward.tasks.dvc_command import StageResult

NOTE_MEASURES = ("recall", "unsupported", "exact", "reward", "tokens")
SUMMARY_MEASURES = (*GOLD_MEASURES, "reward", "tokens", "short")
MODEL_PARAMS = ("policy.sft_model", "policy.base_model")
MAX_ERROR = 1500  # characters
MAX_SETTINGS = 25
TABLE_WIDTH = 100  # columns
EVALUATION_TABLE = Path("data/evaluation/table.json")


def describe_run(run_id: str) -> str:
    """Return the note, in Markdown, of a pipeline run that has ended, with or without an evaluation."""
    run = read_run(run_id)
    stages = stage_runs(run)
    lines = list(_outcome(run, stages))
    # The UI shows the first lines of a note until a click: the result comes first, what it was made of later.
    if run.evaluation:
        lines += [*_against_sft(run.evaluation), *_against_champion(run)]
    elif run.status == "FINISHED":
        lines += ["", "No model of this run has been evaluated."]
    lines += ["", "### Model, code and data", "", *_origin(run, stages)]
    if stages:
        rows = (
            (
                _link(run, stage.info.run_id, stage.data.tags.get(STAGE_TAG, stage.info.run_name)),
                format_duration(run_seconds(stage)),
                stage.info.status.lower() if _is_child(stage, run) else "up to date, from an earlier run",
            )
            for stage in stages
        )
        lines += ["", "### Stages", "", *markdown_table(("stage", "time", ""), rows)]
    return "\n".join(lines)


def _outcome(run: PastRun, stages: "Sequence[Run]") -> Iterator[str]:
    """Yield how the run ended."""
    if run.status == "FAILED":
        error = run.tags.get(ERROR_TAG, "no error was recorded")
        yield from ("**It failed:**", "", "```", error[:MAX_ERROR].replace("```", "'''"), "```", "")
    if run.status == "KILLED":
        killed = [stage.info.run_name for stage in stages if _is_child(stage, run) and stage.info.status == "KILLED"]
        yield f"**It was stopped**{f' in {killed[-1]}' if killed else ''}; the next run continues from there."
        yield ""
    yield f"**{run.name}** {run.status.lower()} after {format_duration(run.seconds)}"


def _origin(run: PastRun, stages: "Sequence[Run]") -> Iterator[str]:
    """Yield the model, judge and code of a run, its own settings, and the data that it read."""
    model = next((run.params[name] for name in MODEL_PARAMS if run.params.get(name) not in (None, "", "None")), "")
    judges = [stage.data.tags["judge"] for stage in stages if stage.data.tags.get("judge")]
    judge = judges[-1] if judges else run.params.get("judge.kind", "unknown")
    code = run.tags.get(COMMIT_TAG, "")[:10] or "unknown"
    changed = " with uncommitted changes" if run.tags.get("longreward.uncommitted") == "true" else ""
    yield f"- model `{model or 'unknown'}`, judge `{judge}`, code `{code}`{changed}"
    if overrides := run.tags.get(OVERRIDES_TAG):
        yield f"- settings of this run alone: `{', '.join(overrides.splitlines())}`"
    hashes: dict[str, str] = {}
    for tag, value in (item for stage in stages for item in stage.data.tags.items()):
        if tag.startswith(DVC_TAG):
            path = Path(tag.removeprefix(DVC_TAG))
            # A file inside a folder that DVC tracks has the folder's hash.
            hashes[(path.parent if path.suffix and value.endswith(".dir") else path).as_posix()] = value
    if hashes:
        yield "- DVC: " + ", ".join(f"{path} `{hash_[:10]}`" for path, hash_ in sorted(hashes.items()))


def _against_sft(evaluation: str) -> Iterator[str]:
    yield ""
    try:
        table = read_artifact(evaluation, TABLE)
    except LongRewardError as error:
        yield f"The evaluation cannot be shown: {error}"
        return
    rows = [
        _evaluation_cells(row)
        for row in table["rows"]
        if row["measure"] in NOTE_MEASURES and " against " not in row["comparison"]
    ]
    yield from (str(table["sentence"]), "", "### Against its SFT model", "")
    yield from markdown_table(("decoding", "measure", "SFT", "DPO", *CHANGE_HEADER), rows)


def _evaluation_cells(row: Mapping[str, Any]) -> Cells:
    values = value_cells(row["measure"], row["first"]["value"], row["second"]["value"], row["difference"])
    return (row["comparison"], row["measure"], *values)


def _against_champion(run: PastRun) -> Iterator[str]:
    """Compare with the champion at the time of the evaluation, which this run's model may have replaced."""
    assert run.evaluation is not None, "checked by the caller"
    tags = run_tags(run.evaluation)
    before = tags.get(CHAMPION_BEFORE, "none")
    result = "became the champion" if tags.get(CHAMPION_NOW) == "true" else "did not become the champion"
    yield from ("", "### Against the champion", "")
    if before == "none":
        yield f"There was none yet; this model {result}."
        return
    champion = read_run(before)
    summary = f"It was compared with {_link(run, champion.id, champion.name)} and {result}."
    try:
        comparison = compare(champion, run, top=0)
    except LongRewardError as error:
        yield f"{summary} The two cannot be compared: {error}"
        return
    yield f"{summary} {comparison.overlap.sentence}"
    yield from ("", *comparison.warnings) if comparison.warnings else ()
    changes = [change for change in comparison.changes if change.model == "dpo" and change.measure in NOTE_MEASURES]
    header = ("decoding", "measure", "champion", "this", *CHANGE_HEADER, "")
    yield from ("", *markdown_table(header, map(change_cells, changes)), "")
    if not comparison.params:
        yield "Its settings are the champion's."
        return
    settings = comparison.params[:MAX_SETTINGS]
    yield from ("Settings that differ from the champion's:", "")
    yield from markdown_table(("setting", "champion", "this"), map(difference_cells, settings))
    if more := len(comparison.params) - len(settings):
        yield from ("", f"and {more} more.")


def _is_child(stage: "Run", run: PastRun) -> bool:
    return bool(stage.data.tags.get(PARENT_TAG) == run.id)


def _link(run: PastRun, run_id: str, name: str) -> str:
    """Link to the page of a run in MLflow's view for training, with curves, rather than for agents."""
    return f"[{name}](#/experiments/{run.experiment}/runs/{run_id}?workflowType=machine_learning)"


def print_summary(
    results: "Sequence[StageResult]",
    *,
    seconds: float,
    view: str | None = "longreward view",
    comparable: bool = False,
    table: Path = EVALUATION_TABLE,
    width: int | None = None,
) -> None:
    """Print the evaluation (if `evaluate` was among the stages), the times, and the commands for further inspection.

    `view` is the command for the evidence page; None: there is no page. With `comparable`, the comparison with the
    run before is among the commands.
    """
    from rich.console import Console

    width = width or output_width()
    # A table that is wider than the terminal is wrapped there; rich would cut off its cells.
    console = Console(width=max(TABLE_WIDTH, width), highlight=False)
    with console.capture() as capture:  # `print` reports a closed pipe, rich exits
        _render_summary(console, results, seconds=seconds, view=view, comparable=comparable, table=table, width=width)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _render_summary(
    console: "Console",
    results: "Sequence[StageResult]",
    *,
    seconds: float,
    view: str | None,
    comparable: bool,
    table: Path,
    width: int,
) -> None:
    if table.exists() and any(result.stage == "evaluate" for result in results):
        evaluation = json.loads(table.read_text(encoding="utf-8"))
        comparisons = _table("SFT against DPO on held-out documents")
        comparisons.add_column("measure", no_wrap=True)
        for column in ("SFT", "DPO", "change", "interval", "p"):
            comparisons.add_column(column, justify="right", no_wrap=True)
        rows = (_evaluation_cells(row) for row in evaluation["rows"] if row["measure"] in SUMMARY_MEASURES)
        for comparison, group in groupby(rows, key=itemgetter(0)):
            comparisons.add_row(f"[bold]{comparison}[/bold]")  # no column of its own: it would not fit 60 columns
            for _, measure, *cells in group:
                comparisons.add_row(f"  {measure}", *cells)
            comparisons.add_section()
        console.print(comparisons)
        console.print(evaluation["sentence"], width=width)
        console.print(f"[dim]Every measure is in {table.with_name('report.md')}.[/dim]\n", soft_wrap=True)
    times = _table("Time")
    times.add_column("stage")
    times.add_column("seconds", justify="right")
    times.add_column("")
    for result in results:
        times.add_row(result.stage, f"{result.seconds:.1f}", "" if result.ran else "was up to date")
    times.add_section()
    times.add_row("all", f"{seconds:.1f}", "")
    console.print(times)
    uri = store_uri()
    for purpose, command in (
        *([("prompts, verdicts and evidence", view)] if view else []),
        ("the UIs of Prefect and MLflow", "longreward serve"),
        *([("against the run before", "longreward compare last~1 last")] if comparable else []),
        ("MLflow alone", _mlflow_command(Path(sys.executable).parent, uri)),
    ):
        console.print(f"[bold]{purpose}:[/bold] {command}", soft_wrap=True)  # a command is copied as one line


def _mlflow_command(bin_folder: Path, uri: str) -> str:
    """Return how to look at the runs; a login is neither shown nor put where `ps` shows it."""
    if is_server(uri):
        return redact(uri)
    if redact(uri) == uri:
        return f"{bin_folder / 'mlflow'} ui --backend-store-uri {uri}"
    return f'MLFLOW_BACKEND_STORE_URI="${TRACKING_URI}" {bin_folder / "mlflow"} ui'


def _table(title: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    # The box has a space between cells; with padding, the table of an evaluation does not fit 60 columns.
    return Table(title=title, title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False, padding=0)
