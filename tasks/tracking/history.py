"""Runs of the past: found by name, id, `champion`, `last` or `last~1`, with what their evaluation left."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from longreward.errors import ConfigError, DataError
from longreward.tasks.tracking.outbox import store_errors
from longreward.tasks.tracking.registry import champion
from longreward.tasks.tracking.run_hierarchy import HOST_TAG, ROLE_TAG
from longreward.tasks.tracking.store import EXPERIMENT, client, experiment_id, store_uri
from longreward.utils.redaction import redact

PARENT_TAG, STAGE_TAG = "mlflow.parentRunId", "longreward.stage"
NAMED = 8  # runs that an error message lists
MEASURES, ANSWERS, TABLE = "evaluation/measures.json", "evaluation/answers.json", "evaluation/table.json"


@dataclass(frozen=True)
class PastRun:
    """A whole pipeline's run; `evaluation` is the run of the evaluate stage that it made or, up to date, linked."""

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
        return _linked(self.tags, "benchmark")


@dataclass(frozen=True)
class PastStage:
    """A stage's run; `run` is its id, `of` the id of the pipeline's run that it was made in, `error` why it failed."""

    stage: str
    run: str
    of: str
    status: str
    seconds: float
    error: str
    tags: Mapping[str, str]


def find_run(name: str, *, registered_model: str) -> PastRun:
    """Raises ConfigError, with the newest runs' names, where there is no such run."""
    if name == "champion":
        return _champion(registered_model)
    if last := re.fullmatch(r"last(?:~(\d+))?", name):
        number = int(last.group(1) or 0)
        found = _parents(number + 1)[number:]
    elif re.fullmatch(r"[0-9a-f]{32}", name) and (known := _by_id(name)):
        return known
    else:
        found = _parents(1, f"attributes.run_name = '{name}'") if "'" not in name else []
    if not found:
        raise ConfigError(
            f"there is no run {name!r} in experiment {EXPERIMENT!r} of {redact(store_uri())}; {_newest()}"
        )
    return _past(found[0])


def read_run(run_id: str) -> PastRun:
    """The run of that id; for a stage's or a model's, the pipeline's above it, with that stage's evaluation."""
    run = client().get_run(run_id)
    evaluation = None
    while HOST_TAG not in run.data.tags and (above := run.data.tags.get(PARENT_TAG)):
        if run.data.tags.get(STAGE_TAG) == "evaluate":
            evaluation = run.info.run_id
        run = client().get_run(above)
    return _past(run, evaluation)


def stage_runs(parent: PastRun) -> list[PastStage]:
    """The stages' runs that were made under the parent, and those from before that it found up to date, in order."""
    under = _under(parent.id)
    here = {run.info.run_id for run in under}
    linked = [value for tag, value in parent.tags.items() if tag.startswith(f"{STAGE_TAG}.")]
    under += [client().get_run(run_id) for run_id in linked if run_id not in here and run_id != "unknown"]
    return sorted((_part(run) for run in under), key=lambda part: float(part.tags["started"]))


def model_metrics(run_id: str) -> dict[str, dict[str, float]]:
    """The metrics of each model's run under a stage's, by role."""
    return {run.data.tags[ROLE_TAG]: dict(run.data.metrics) for run in _under(run_id) if ROLE_TAG in run.data.tags}


def read_artifact(run_id: str, file: str) -> Any:
    """A JSON file that a run keeps; raises DataError where it does not, or its place cannot be reached from here."""
    from mlflow.exceptions import MlflowException

    try:
        with TemporaryDirectory() as folder:
            path = client().download_artifacts(run_id, file, folder)
            with open(path, encoding="utf-8") as content:
                return json.load(content)
    except (MlflowException, OSError, ValueError) as error:
        words = " ".join(redact(str(error)).split())[:300]
        raise DataError(
            f"{file} of run {run_id} cannot be read: {words}; an evaluation of an earlier version does not have it: "
            "run it again (`longreward run --force --stages evaluate`)"
        ) from error


def _champion(registered_model: str) -> PastRun:
    measured = champion(registered_model)
    if measured is None:
        raise ConfigError(f"no version of the registered model {registered_model!r} is the champion yet; {_newest()}")
    return read_run(measured)


def _by_id(run_id: str) -> PastRun | None:
    from mlflow.exceptions import MlflowException

    try:
        return read_run(run_id)
    except MlflowException:
        return None


def _parents(count: int, where: str = "") -> list[Any]:
    """The newest runs of whole pipelines, which alone have their machine's name."""
    known = " and ".join([f"tags.`{HOST_TAG}` LIKE '%'", *([where] if where else [])])
    order = ["attributes.start_time DESC"]
    return list(client().search_runs([experiment_id()], known, max_results=count, order_by=order))


def _newest() -> str:
    names = [run.info.run_name for run in _parents(NAMED)]
    return f"the newest are {', '.join(names)}" if names else "it has no runs yet"


def _past(run: Any, evaluation: str | None = None) -> PastRun:
    tags = dict(run.data.tags)
    return PastRun(
        id=run.info.run_id,
        experiment=run.info.experiment_id,
        name=run.info.run_name,
        status=run.info.status,
        seconds=_seconds(run),
        params=dict(run.data.params),
        tags=tags,
        evaluation=evaluation or _linked(tags, "evaluate"),
    )


def _under(run_id: str) -> list[Any]:
    return list(client().search_runs([experiment_id()], f"tags.`{PARENT_TAG}` = '{run_id}'"))


def _linked(tags: Mapping[str, str], stage: str) -> str | None:
    """The stage's run that a pipeline's run made or, up to date, points to; None where it is not known."""
    found = tags.get(f"{STAGE_TAG}.{stage}")
    return found if found != "unknown" else None


def _part(run: Any) -> PastStage:
    tags = dict(run.data.tags)
    return PastStage(
        stage=tags.get(STAGE_TAG, run.info.run_name),
        run=run.info.run_id,
        of=tags.get(PARENT_TAG, ""),
        status=run.info.status,
        seconds=_seconds(run),
        error=tags.get("longreward.error", ""),
        tags={**tags, "started": str(run.info.start_time)},
    )


def _seconds(run: Any) -> float:
    return float((run.info.end_time or time.time() * 1000) - run.info.start_time) / 1000


def run_tags(run_id: str) -> Mapping[str, str]:
    """A run's tags. Raises TrackingUnavailable."""
    with store_errors():
        return dict(client().get_run(run_id).data.tags)
