"""How runs begin and end: the parent run of a pipeline, a stage's run under it, a model's run under that."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Literal

from longreward.tasks.processes import ProcessRef, owner_process
from longreward.tasks.state import state_folder, state_lock
from longreward.tasks.tracking.outbox import outbox, store_errors
from longreward.tasks.tracking.run import DVC_TAG, UNKNOWN, Run, create_run, flatten_params
from longreward.tasks.tracking.store import client, experiment_id, store_uri
from longreward.tasks.tracking.system_metrics import log_system_metrics
from longreward.utils.redaction import redact

# Variables that hand a parent down. Not MLFLOW_RUN_ID: with it, MLflow ignores a parent.
PARENT = "LONGREWARD_PARENT_RUN"
STUDY = "LONGREWARD_STUDY_RUN"
PARENT_TAG = "mlflow.parentRunId"
STAGE_TAG, ROLE_TAG, STUDY_TAG = "longreward.stage", "longreward.role", "longreward.study"
DISTILL_TAG = "longreward.distill"
# Prefix of a pipeline's tags with the ids of its stages' runs. The UI hides tags that begin with "mlflow."
STAGE_LINK = "mlflow.longreward.stage."
# What a pipeline's run shows of its stages' runs, for the columns of the UI's table of runs.
SHOWN_TAGS = ("judge", "pair.method")
SHOWN_DATASETS = ("pairs", "heldout")
FLOW_TAG, OVERRIDES_TAG = "prefect.flow_run", "longreward.overrides"
HOST_TAG, STUDY_HOST_TAG = "longreward.host", "longreward.study_host"  # on parent runs, and on runs of studies
OWNER_TAG = "longreward.owner"
ERROR_TAG, MAX_ERROR = "longreward.error", 4000

Describe = Callable[[str], str]
"""Returns the note of the parent run with this id, once it has ended."""


@contextmanager
def parent_run(
    name: str, params: Mapping[str, Any], *, flow_run: str = "", overrides: str = "", describe: Describe | None = None
) -> Iterator[str]:
    """Open the run of a whole pipeline and yield its id, to be handed down in `LONGREWARD_PARENT_RUN`.

    A flow run that is retried, whose id in Prefect is `flow_run`, continues its earlier run, unless the parameters
    have changed. Raises TrackingUnavailable if the store does not answer now; errors of the store later do not raise.
    """
    with store_errors():
        earlier = _search(f"tags.`{FLOW_TAG}` = '{flow_run}'") if flow_run else []
        if earlier and earlier[0].data.params == dict(flatten_params(params)):
            parent = str(earlier[0].info.run_id)
            Run(parent).set_status("RUNNING")
            Run(parent).set_tags(_owner_tags())
        else:
            parent = _create_parent(name, params, {FLOW_TAG: flow_run, OVERRIDES_TAG: overrides})
    with _end_with_note(Run(parent), describe):
        try:
            yield parent
        finally:
            _close_killed_children(parent)


def _create_parent(name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    close_killed_runs()
    tags = {**code_tags(), **_owner_tags(), **{name: value for name, value in tags.items() if value}}
    run_id = create_run(name, parent=os.environ.get(STUDY), tags=tags)
    Run(run_id).log_params(params)
    return run_id


def _owner_tags(host_tag: str = HOST_TAG) -> dict[str, str]:
    return {host_tag: platform.node(), OWNER_TAG: str(owner_process())}


@contextmanager
def _end_run(run: Run) -> Iterator[None]:
    """End a run as FINISHED, FAILED (an error) or KILLED (a signal)."""
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception as error:
        status = "FAILED"
        run.set_tags({ERROR_TAG: redact(f"{type(error).__name__}: {error}")[:MAX_ERROR]})
        raise
    finally:
        run.flush(last=True)
        run.set_status(status)


@contextmanager
def _end_with_note(parent: Run, describe: Describe | None) -> Iterator[None]:
    """End a parent run, and show at the top of its page what it was, how it went and what went wrong."""
    try:
        with _end_run(parent):
            yield
    finally:
        if describe is not None:
            outbox.send("the note of the run", lambda: parent.log_report("note.md", describe(parent.id)))
        outbox.flush(last=True)


def find_or_create_parent(params: Mapping[str, Any]) -> str:
    """Return the parent that was handed down; under a bare `dvc repro`, that of its first stage, which creates it."""
    if parent := os.environ.get(PARENT):
        return parent
    with state_lock("parent-run"):
        file = state_folder() / "parent-run.json"
        recorded = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        key = {"owner": str(owner_process()), "store": redact(store_uri())}
        if key.items() <= recorded.items():
            return str(recorded["run"])
        with store_errors():
            run_id = _create_parent(f"dvc-{time.strftime('%Y%m%d-%H%M%S')}", params, {})
        file.write_text(json.dumps({**key, "run": run_id}), encoding="utf-8")
        return run_id


@contextmanager
def stage_run(
    stage: str,
    *,
    params: Mapping[str, Any],
    all_params: Mapping[str, Any],
    tags: Mapping[str, str],
    describe: Describe | None = None,
) -> Iterator[Run]:
    """Open the run of a stage under its parent.

    Args:
        params: the sections that the stage uses.
        all_params: those of the parent, which this creates under a bare `dvc repro`.
        tags: among them DVC's hashes of the inputs, with the prefix DVC_TAG.
        describe: writes the note of the parent under a bare `dvc repro`.

    Raises TrackingUnavailable if there is no parent yet and the store does not answer. With a parent, the stage
    belongs to a run that has begun, and goes on without the store.
    """
    parent = find_or_create_parent(all_params)
    _close_killed_children(parent, stage)
    run = Run.begin(stage, parent=parent, tags={STAGE_TAG: stage, **code_tags(), **tags})
    run.log_params(params)
    run.log_inputs(stage, {tag.removeprefix(DVC_TAG): value for tag, value in tags.items() if tag.startswith(DVC_TAG)})
    try:
        with ExitStack() as stack:
            if not os.environ.get(PARENT):  # any stage of a bare `dvc repro` may be the last: each ends the parent
                parent_of_repro = Run(parent)
                parent_of_repro.set_status("RUNNING")
                stack.enter_context(_end_with_note(parent_of_repro, describe))
            stack.enter_context(_end_run(run))
            stack.enter_context(log_system_metrics(run))
            yield run
    finally:
        outbox.flush(last=True)


@contextmanager
def study_run(name: str) -> Iterator[Run]:
    """Open the run of the study of that name, which its first try creates."""
    with _continued_run(name, STUDY_TAG, name) as run:
        yield run


@contextmanager
def distill_run(key: str) -> Iterator[Run]:
    """Open the run of the training with this key, which its first try creates."""
    with _continued_run("distill", DISTILL_TAG, key) as run:
        yield run


@contextmanager
def _continued_run(name: str, tag: str, value: str) -> Iterator[Run]:
    """Open the run with this value of the tag, or create one, under no other run."""
    with store_errors():
        runs = _search(f"tags.`{tag}` = '{value}'")
        tags = {tag: value, **code_tags()}
        run = Run(str(runs[0].info.run_id) if runs else create_run(name, parent=None, tags=tags))
    run.set_status("RUNNING")
    run.set_tags(_owner_tags(STUDY_HOST_TAG))
    try:
        with _end_run(run):
            yield run
    finally:
        outbox.flush(last=True)


def link_stage(parent: str, stage: str, headline: Mapping[str, float], *, stage_run_id: str) -> None:
    """Show a stage's headline metrics on a pipeline's run, and link to the stage's run, maybe that of an earlier run.

    Args:
        headline: see `tasks.stage_metrics`.
        stage_run_id: UNKNOWN if the stage has none.
    """
    run = Run(parent)
    run.log_metrics(headline)
    run.flush(last=True)
    run.set_tags({f"{STAGE_LINK}{stage}": stage_run_id})
    if stage_run_id != UNKNOWN:
        outbox.send(f"what the run of {stage} shows", lambda: _copy_from_stage(parent, stage_run_id))


def _copy_from_stage(parent: str, stage_run_id: str) -> None:
    """Copy tags and data sets that help to tell pipelines' runs apart, from a stage's run."""
    stage_run = client().get_run(stage_run_id)
    tags = {name: stage_run.data.tags[name] for name in SHOWN_TAGS if name in stage_run.data.tags}
    datasets = [
        dataset_input
        for dataset_input in stage_run.inputs.dataset_inputs
        if dataset_input.dataset.name in SHOWN_DATASETS
    ]
    if tags:
        Run(parent).set_tags(tags)
    if datasets:
        client().log_inputs(parent, datasets)


def log_model_run(stage: Run, role: str, metrics: Mapping[str, float], *, tags: Mapping[str, str]) -> str:
    """Log a run under the stage's for one evaluated model; return its id. Every role has the same metric names."""
    run = Run.begin(role, parent=stage, tags={ROLE_TAG: role, **tags})
    run.log_metrics(metrics)
    run.flush(last=True)
    run.set_status("FINISHED")
    return run.id


@cache
def code_tags() -> dict[str, str]:
    """Return the git commit, and whether the checkout had changes; nothing outside git."""
    try:
        commit, changed = (
            subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "longreward.uncommitted": str(bool(changed)).lower()}


def close_killed_runs() -> list[str]:
    """Close the runs of this machine whose process was killed; return their names. Raises TrackingUnavailable."""
    closed: list[str] = []
    with store_errors():
        for tag in (HOST_TAG, STUDY_HOST_TAG):
            for run in _search(f"tags.`{tag}` = '{platform.node()}'", running=True):
                if not ProcessRef.parse(run.data.tags[OWNER_TAG]).alive:
                    closed += _close_children(run.info.run_id)
                    closed.append(_close(run))
    return closed


def _close_killed_children(parent: str, stage: str | None = None) -> None:
    """Close the runs that earlier tries of this stage, or of all stages, left open when they were killed."""
    of_stage = f" and tags.`{STAGE_TAG}` = '{stage}'" if stage else ""
    outbox.send("the end of runs that were killed", lambda: _close_children(parent, of_stage))


def _close_children(parent: str, filter: str = "") -> list[str]:
    """Close the running runs under a run, but not those of pipelines, which a study's run has below it."""
    closed = []
    for run in _search(f"tags.{PARENT_TAG} = '{parent}'{filter}", running=True):
        if HOST_TAG not in run.data.tags:
            closed += _close_children(run.info.run_id)
            closed.append(_close(run))
    return closed


def _close(run: Any) -> str:
    client().set_terminated(run.info.run_id, "KILLED")
    return str(run.info.run_name)


def _search(filter: str, *, running: bool = False) -> list[Any]:
    status = " and attributes.status = 'RUNNING'" if running else ""
    return list(client().search_runs([experiment_id()], filter + status))
