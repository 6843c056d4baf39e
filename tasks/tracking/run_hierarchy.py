"""How runs begin and end: the parent of an experiment, a stage's below it, a measured model's below that."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Literal

from longreward.tasks.processes import ProcessRef, parent_process
from longreward.tasks.state import state_folder, state_lock
from longreward.tasks.tracking.outbox import outbox, store_errors
from longreward.tasks.tracking.run import UNKNOWN, Run, create_run, flat_settings
from longreward.tasks.tracking.store import client, experiment_id, store_uri
from longreward.tasks.tracking.system_metrics import log_system_metrics
from longreward.utils.redaction import redact

PARENT = "LONGREWARD_PARENT_RUN"  # our own: where MLFLOW_RUN_ID is set, MLflow ignores a parent
STAGE_TAG, ROLE_TAG = "longreward.stage", "longreward.role"
FLOW_TAG, OVERRIDES_TAG = "prefect.flow_run", "longreward.overrides"
STUDY = "LONGREWARD_STUDY_RUN"  # the study below whose run whole pipelines lie
STUDY_TAG, STUDY_HOST_TAG = "longreward.study", "longreward.study_host"
HOST_TAG, OWNER_TAG = "longreward.host", "longreward.owner"  # of whole pipelines' runs alone
ERROR_TAG, MOST_WORDS = "longreward.error", 4000

Status = Literal["FINISHED", "FAILED", "KILLED"]


@contextmanager
def parent_run(name: str, settings: Mapping[str, Any], *, flow_run: str = "", overrides: str = "") -> Iterator[str]:
    """The run of a whole experiment; gives its id, to be handed down in `LONGREWARD_PARENT_RUN`.

    A retried flow run, whose id in Prefect is `flow_run`, goes on in the run that it had, unless its settings have
    changed since. Raises TrackingUnavailable where the store does not answer now; once the run has begun, nothing that
    happens to the store raises.
    """
    tags = {FLOW_TAG: flow_run, OVERRIDES_TAG: overrides}
    with store_errors():
        parent = _earlier_try(flow_run, settings) or _start_parent(name, settings, tags)
    with _described(Run(parent)):
        try:
            yield parent
        finally:
            _close_left_open(parent)


def _start_parent(name: str, settings: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> str:
    close_killed_runs()
    known = {name: value for name, value in (tags or {}).items() if value}
    tags = {**code_tags(), HOST_TAG: platform.node(), OWNER_TAG: str(parent_process()), **known}
    run_id = create_run(name, parent=os.environ.get(STUDY), tags=tags)
    Run(run_id).settings(settings)
    return run_id


def _earlier_try(flow_run: str, settings: Mapping[str, Any]) -> str | None:
    """The parent that this flow run made before it was retried, which runs again from here on."""
    found = client().search_runs([experiment_id()], f"tags.`{FLOW_TAG}` = '{flow_run}'") if flow_run else []
    if not found or found[0].data.params != dict(flat_settings(settings)):
        return None
    run = Run(str(found[0].info.run_id))
    run.status("RUNNING")
    run.tag({OWNER_TAG: str(parent_process()), HOST_TAG: platform.node()})
    return run.id


@contextmanager
def _ended(run: Run) -> Iterator[None]:
    """Closes a run as FINISHED, FAILED (an error) or KILLED (a signal)."""
    status: Status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception as error:
        status = "FAILED"
        run.tag({ERROR_TAG: redact(f"{type(error).__name__}: {error}")[:MOST_WORDS]})
        raise
    finally:
        run.flush(last=True)
        run.status(status)


@contextmanager
def _described(parent: Run) -> Iterator[None]:
    """Closes a parent as `_ended` does, and leaves a note on it: what it is, how it did, what went wrong."""
    try:
        with _ended(parent):
            yield
    finally:
        from longreward.tasks.run_description import run_description
        from longreward.tasks.tracking.history import read_run

        outbox.send("the note of the run", lambda: parent.note(run_description(read_run(parent.id))))
        outbox.flush(last=True)


def parent_of_this_process(settings: Mapping[str, Any]) -> str:
    """The parent that was handed down; under a bare `dvc repro`, the one of its first stage, which makes it."""
    if handed_down := os.environ.get(PARENT):
        return handed_down
    with state_lock("parent-run"):
        note = state_folder() / "parent-run.json"
        known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        store = redact(store_uri())
        if known.get("owner") == str(parent_process()) and known.get("store") == store:
            return str(known["run"])
        with store_errors():
            run_id = _start_parent(f"dvc-{time.strftime('%Y%m%d-%H%M%S')}", settings)
        note.write_text(json.dumps({"owner": str(parent_process()), "store": store, "run": run_id}), encoding="utf-8")
        return run_id


@contextmanager
def stage_run(
    stage: str, *, settings: Mapping[str, Any], all_settings: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[Run]:
    """The run of one stage under its parent; it ends as FINISHED, FAILED (an error) or KILLED (a signal).

    Raises TrackingUnavailable where there is no parent yet and the store does not answer. With a parent, the stage
    belongs to a run that has begun, and goes on without the store.
    """
    parent = parent_of_this_process(all_settings)
    _close_left_open(parent, stage)
    run = Run.begin(stage, parent=parent, tags={STAGE_TAG: stage, **code_tags(), **tags})
    run.settings(settings)
    run.inputs(stage, {tag.removeprefix("dvc."): hash_ for tag, hash_ in tags.items() if tag.startswith("dvc.")})
    try:
        with ExitStack() as stack:
            if not os.environ.get(PARENT):  # nobody knows which stage of a bare `dvc repro` is its last: each may be
                above = Run(parent)
                above.status("RUNNING")
                stack.enter_context(_described(above))
            stack.enter_context(_ended(run))
            stack.enter_context(log_system_metrics(run))
            yield run
    finally:
        outbox.flush(last=True)


@contextmanager
def study_run(name: str) -> Iterator[Run]:
    """The run of the study of that name, made at its first try; it ends as FINISHED, FAILED or KILLED."""
    owned = {OWNER_TAG: str(parent_process()), STUDY_HOST_TAG: platform.node()}
    with store_errors():
        found = client().search_runs([experiment_id()], f"tags.`{STUDY_TAG}` = '{name}'")
        tags = {STUDY_TAG: name, **code_tags()}
        run = Run(str(found[0].info.run_id) if found else create_run(name, parent=None, tags=tags))
    run.status("RUNNING")
    run.tag(owned)
    try:
        with _ended(run):
            yield run
    finally:
        outbox.flush(last=True)


def link_stage(parent: str, stage: str, figures: Mapping[str, Any]) -> None:
    """Shows a stage's figures (metrics/<stage>.json) on a parent, as "stage/figure", and which run they are from."""
    run = Run(parent)
    run.figures({f"{stage}/{name}": value for name, value in figures.items() if isinstance(value, int | float)})
    run.flush(last=True)
    run.tag({f"{STAGE_TAG}.{stage}": str(figures.get("mlflow_run", UNKNOWN))})


def model_run(stage: Run, role: str, figures: Mapping[str, float], *, tags: Mapping[str, str]) -> str:
    """A run under the stage's for one measured model; returns its id. Every role has the same metric names."""
    run = Run.begin(role, parent=stage, tags={ROLE_TAG: role, **tags})
    run.figures(figures)
    run.flush(last=True)
    run.status("FINISHED")
    return run.id


@cache
def code_tags() -> dict[str, str]:
    """Which code ran: the commit, and whether the checkout had changes."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "longreward.uncommitted": str(bool(changed)).lower()}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def close_killed_runs() -> list[str]:
    """Close the runs of this machine that seem to run though their process was killed outright; return their names.

    A killed process cannot close them itself. Raises TrackingUnavailable.
    """
    closed: list[str] = []
    with store_errors():
        for tag in (HOST_TAG, STUDY_HOST_TAG):
            for run in _running(f"tags.`{tag}` = '{platform.node()}'"):
                if not ProcessRef.read(run.data.tags[OWNER_TAG]).alive:
                    closed += _close_below(run.info.run_id)
                    client().set_terminated(run.info.run_id, "KILLED")
                    closed.append(str(run.info.run_name))
    return closed


def _close_left_open(parent: str, stage: str | None = None) -> None:
    """A try of this stage, or of any, that was killed outright could not close its run."""
    of_stage = f" and tags.`{STAGE_TAG}` = '{stage}'" if stage else ""
    outbox.send("the end of runs that were killed", lambda: _close_below(parent, of_stage))


def _close_below(parent: str, where: str = "") -> list[str]:
    """Close what runs under a run, and under that, but no whole pipelines, which a study's run has below it."""
    closed = []
    for run in _running(f"tags.mlflow.parentRunId = '{parent}'{where}"):
        if HOST_TAG not in run.data.tags:
            closed += _close_below(run.info.run_id)
            client().set_terminated(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_name))
    return closed


def _running(where: str) -> list[Any]:
    return list(client().search_runs([experiment_id()], f"{where} and attributes.status = 'RUNNING'"))
