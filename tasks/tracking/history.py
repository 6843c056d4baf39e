"""Past runs: find them by name, id, `champion`, `last` or `last~1`, and read what their evaluation logged."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from longreward.errors import ConfigError, DataError
from longreward.tasks.tracking.outbox import outbox, store_errors
from longreward.tasks.tracking.registry import champion
from longreward.tasks.tracking.run import UNKNOWN
from longreward.tasks.tracking.run_hierarchy import HOST_TAG, PARENT_TAG, ROLE_TAG, STAGE_LINK, STAGE_TAG
from longreward.tasks.tracking.store import (
    EXPERIMENT,
    TrackingUnavailable,
    client,
    experiment_id,
    require_store,
    store_uri,
)
from longreward.utils.redaction import redact

if TYPE_CHECKING:
    from mlflow.entities import Run

OLD_STAGE_LINK = f"{STAGE_TAG}."  # in runs that were tracked before the UI hid these tags
LISTED_RUNS = 8  # in an error message
# Files of an evaluate run.
MEASURES, ANSWERS, TABLE = "evaluation/measures.json", "evaluation/answers.json", "evaluation/table.json"


@dataclass(frozen=True)
class PastRun:
    """The run of a pipeline. `evaluation` is the run of its evaluate stage, or the one that it linked as up to date."""

    id: str
    experiment: str
    name: str
    status: str
    seconds: float
    params: Mapping[str, str]
    tags: Mapping[str, str]
    evaluation: str | None

    @property
    def benchmarks(self) -> str | None:
        """The run of the benchmark stage."""
        return _linked_run(self.tags, "benchmark")


def find_run(name: str, *, registered_model: str) -> PastRun:
    """Return the newest run of that name, or by id, `champion`, `last` or `last~N`.

    Raises ConfigError, with the newest runs' names, if there is none, or if there is no store.
    """
    from mlflow.exceptions import MlflowException

    require_store()
    if name == "champion":
        evaluation = champion(registered_model)
        if evaluation is None:
            raise ConfigError(
                f"no version of the registered model {registered_model!r} is the champion yet; {_newest_names()}"
            )
        return read_run(evaluation)
    if last := re.fullmatch(r"last(?:~(\d+))?", name):
        number = int(last.group(1) or 0)
        runs = _pipeline_runs(number + 1)[number:]
    else:
        if re.fullmatch(r"[0-9a-f]{32}", name):
            with suppress(MlflowException):  # no run has this id; it may be a name
                return read_run(name)
        runs = _pipeline_runs(1, f"attributes.run_name = '{name}'") if "'" not in name else []
    if not runs:
        raise ConfigError(
            f"there is no run {name!r} in experiment {EXPERIMENT!r} of {redact(store_uri())}; {_newest_names()}"
        )
    return _past_run(runs[0])


def last_runs_are_evaluated() -> bool:
    """Whether `longreward compare last~1 last` finds two evaluated runs; False if the store does not answer."""
    if outbox.paused:
        return False
    try:
        with store_errors():
            runs = _pipeline_runs(2)
    except TrackingUnavailable:
        return False
    return len(runs) == 2 and all(_past_run(run).evaluation for run in runs)


def read_run(run_id: str) -> PastRun:
    """Return the run of that id; for a stage's or a model's run, the pipeline's above it with that evaluation."""
    run = client().get_run(run_id)
    evaluation = None
    while HOST_TAG not in run.data.tags and (parent := run.data.tags.get(PARENT_TAG)):
        if run.data.tags.get(STAGE_TAG) == "evaluate":
            evaluation = run.info.run_id
        run = client().get_run(parent)
    return _past_run(run, evaluation)


def stage_runs(parent: PastRun) -> "list[Run]":
    """Return the stages' runs under the parent, and the earlier ones that it linked as up to date, by start."""
    runs = _child_runs(parent.id)
    ids = {run.info.run_id for run in runs}
    linked = [value for tag, value in parent.tags.items() if tag.startswith((STAGE_LINK, OLD_STAGE_LINK))]
    runs += [client().get_run(run_id) for run_id in linked if run_id not in ids and run_id != UNKNOWN]
    return sorted(runs, key=lambda run: float(run.info.start_time))


def model_metrics(run_id: str) -> dict[str, dict[str, float]]:
    """Return the metrics of each model's run under a stage's, by role."""
    runs = _child_runs(run_id)
    return {run.data.tags[ROLE_TAG]: dict(run.data.metrics) for run in runs if ROLE_TAG in run.data.tags}


def read_artifact(run_id: str, file: str) -> Any:
    """Return the content of a run's JSON file; raises DataError if it is missing or cannot be reached from here."""
    advice = "evaluate again, `longreward run --force --stages evaluate`, if its artifacts are lost"
    text = read_text_artifact(run_id, file, advice=advice)
    try:
        return json.loads(text)
    except ValueError as error:
        raise _unreadable_artifact(run_id, file, error, advice) from error


def read_text_artifact(run_id: str, file: str, *, advice: str) -> str:
    """Return a run's text file; raises DataError, which ends with `advice`, if it is missing or cannot be reached."""
    from mlflow.exceptions import MlflowException

    try:
        with TemporaryDirectory() as folder, open(client().download_artifacts(run_id, file, folder), "rb") as content:
            return content.read().decode("utf-8")
    except (MlflowException, OSError, ValueError) as error:
        raise _unreadable_artifact(run_id, file, error, advice) from error


def _unreadable_artifact(run_id: str, file: str, error: Exception, advice: str) -> DataError:
    message = " ".join(redact(str(error)).split())[:300]
    return DataError(f"{file} of run {run_id} cannot be read: {message}; {advice}")


def run_tags(run_id: str) -> Mapping[str, str]:
    """Return a run's tags; raises TrackingUnavailable."""
    with store_errors():
        return dict(client().get_run(run_id).data.tags)


def _pipeline_runs(count: int, filter: str = "") -> list[Any]:
    """Return the newest runs of pipelines, which alone have the tag of their machine."""
    query = " and ".join([f"tags.`{HOST_TAG}` LIKE '%'", *([filter] if filter else [])])
    order = ["attributes.start_time DESC"]
    return list(client().search_runs([experiment_id()], query, max_results=count, order_by=order))


def _newest_names() -> str:
    names = [run.info.run_name for run in _pipeline_runs(LISTED_RUNS)]
    return f"the newest are {', '.join(names)}" if names else "it has no runs yet"


def _child_runs(run_id: str) -> list[Any]:
    return list(client().search_runs([experiment_id()], f"tags.`{PARENT_TAG}` = '{run_id}'"))


def _linked_run(tags: Mapping[str, str], stage: str) -> str | None:
    """Return the stage's run that a pipeline's run created or linked as up to date."""
    run_id = tags.get(f"{STAGE_LINK}{stage}") or tags.get(f"{OLD_STAGE_LINK}{stage}")
    return run_id if run_id != UNKNOWN else None


def _past_run(run: Any, evaluation: str | None = None) -> PastRun:
    tags = dict(run.data.tags)
    return PastRun(
        id=run.info.run_id,
        experiment=run.info.experiment_id,
        name=run.info.run_name,
        status=run.info.status,
        seconds=run_seconds(run),
        params=dict(run.data.params),
        tags=tags,
        evaluation=evaluation or _linked_run(tags, "evaluate"),
    )


def run_seconds(run: Any) -> float:
    """Return the duration of a run, so far if it has not ended."""
    return float((run.info.end_time or time.time() * 1000) - run.info.start_time) / 1000
