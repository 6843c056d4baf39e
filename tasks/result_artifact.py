"""Show the result of a pipeline run as a Markdown artifact in Prefect: its MLflow note, a figure, links and files."""

import base64
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from prefect.artifacts import acreate_markdown_artifact
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from longreward.errors import LongRewardError
from longreward.tasks.assets import data_outputs
from longreward.tasks.dvc_files import data_hashes, stage_entries
from longreward.tasks.flow_runner import server_answers
from longreward.tasks.tracking.outbox import store_errors
from longreward.tasks.ui_links import mlflow_links
from longreward.utils.markdown import markdown_table
from longreward.utils.redaction import redact

KEY = "result"
FIGURES = ("figures/gold.svg", "figures/rewards.svg")  # of an evaluation; gold facts decide if there are any
PAGES = {"report.md": "report", "evidence.html": "evidence page"}

log = logging.getLogger(__name__)


async def create_result_artifact(run_id: str, *, experiment: str | None) -> None:
    """Create the artifact of the current flow run from its MLflow run, which has ended; a failure is a warning.

    `experiment` is the name of the DVC experiment that the run becomes, if it has its own settings.
    """
    try:
        if not await server_answers():
            return
        links = await mlflow_links(str(PREFECT_API_URL.value()))
        with store_errors():
            markdown = render_result(run_id, links=links, experiment=experiment)
        await acreate_markdown_artifact(
            markdown, key=KEY, description="Result of the run, with its MLflow runs and files"
        )
    except (httpx.HTTPError, PrefectException, LongRewardError) as error:
        log.warning("the result of the run is not in Prefect: %s", redact(str(error)))


def render_result(run_id: str, *, links: str | None, experiment: str | None) -> str:
    """Return the Markdown. `links` precedes the paths of MLflow's UI; None if there is no valid address."""
    # Imported late: evaluation takes seconds to import, and a pipeline needs it at its end alone.
    from longreward.tasks.run_report import describe_run
    from longreward.tasks.tracking.history import read_run

    run = read_run(run_id)
    note = describe_run(run_id)
    if links is None:
        note = re.sub(r"\[([^]]*)\]\(#/[^)]*\)", r"\1", note)
        heading = f"MLflow run `{run_id}`; `longreward serve` shows it"
    else:
        note = note.replace("](#/", f"]({links}/")
        base = f"{links}/experiments/{run.experiment}/runs"
        view = "?workflowType=machine_learning"  # MLflow shows the menu of GenAI otherwise
        pages = [f"[MLflow run]({base}/{run_id}{view})"]
        stages = {"": run_id, "evaluation ": run.evaluation, "benchmark ": run.benchmarks}
        for stage, stage_run in stages.items():
            pages += [
                f"[{stage}{PAGES[file]}]({base}/{stage_run}/artifacts/{file}{view})"
                for file in (_files(stage_run) if stage_run else ())
                if file in PAGES
            ]
        heading = " · ".join(pages)
    return "\n".join(
        [heading, "", note, *_picture(run.evaluation), *_stored_files(experiment if run.status == "FINISHED" else None)]
    )


def _files(run_id: str, folder: str | None = None) -> list[str]:
    from longreward.tasks.tracking.store import client

    return [file.path for file in client().list_artifacts(run_id, folder)]


def _picture(evaluation: str | None) -> Iterator[str]:
    """Yield the figure of the evaluation within the Markdown itself: an address would not stay valid."""
    from longreward.tasks.tracking.store import client

    if evaluation is None:
        return
    figures = _files(evaluation, "figures")
    name = next((figure for figure in FIGURES if figure in figures), None)
    if name is not None:
        with TemporaryDirectory() as folder:
            content = Path(client().download_artifacts(evaluation, name, folder)).read_bytes()
        yield ""
        yield f"![SFT model and trained model](data:image/svg+xml;base64,{base64.b64encode(content).decode()})"


def _stored_files(experiment: str | None) -> Iterator[str]:
    hashes = data_hashes(path for entry in stage_entries().values() for path in data_outputs(entry))
    if not hashes:
        return
    restore = f"; `dvc exp apply {experiment}` restores them in the project's folder" if experiment else ""
    yield from ("", "### Files", "", f"These versions are in DVC's cache{restore}.", "")
    yield from markdown_table(("file", "hash"), ((f"`{path}`", f"`{hash_[:10]}`") for path, hash_ in hashes.items()))
