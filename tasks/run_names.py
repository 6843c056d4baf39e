"""Names of runs that state what runs: `pipeline-20261127-090513`, `train beta-0.3`, `score, shard 3 of 12`."""

import os
import re
import time
from collections.abc import Collection
from typing import Any

RUN_NAME = "LONGREWARD_RUN_NAME"  # the pipeline's name, for the processes of its stages

MAX_STAGES = 3  # that a name lists


def pipeline_run_name(stages: Collection[str], *, requested: str, current: str) -> str:
    """Return the name of a pipeline's run, which is also that of its DVC experiment and its MLflow run.

    Args:
        stages: the requested ones in their order; empty for all.
        requested: the name that the user entered for the run, if any.
        current: the run's present name in Prefect. It is kept if a user chose it, in the UI or an earlier try.
    """
    if requested:
        return requested
    if current and not is_generated(current):
        return current
    names = list(stages)
    what = "-".join(names) if len(names) <= MAX_STAGES else f"{names[0]}-to-{names[-1]}"
    return f"{what or 'pipeline'}-{time.strftime('%Y%m%d-%H%M%S')}"


def stage_run_name(stage: str) -> str:
    """Return the name of the flow run of a stage: with that of its pipeline, or the time under a bare `dvc repro`."""
    return f"{stage} {os.environ.get(RUN_NAME) or time.strftime('%Y%m%d-%H%M%S')}"


def is_generated(name: str) -> bool:
    """Return whether Prefect generated the name: its server vociferous-doberman, the form of its UI Licensed-Eagle."""
    if re.fullmatch(r"[A-Z][a-z]+-[A-Z][a-z]+", name):
        return True
    from coolname import data  # Prefect generates its names with this package

    rules: dict[str, Any] = data.config
    words = {word for rule in rules.values() for word in rule.get("words", ())}
    return "-" in name and set(name.split("-")) <= words
