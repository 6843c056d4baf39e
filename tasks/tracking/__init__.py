"""MLflow: one parent run for each pipeline, one run for each stage, the trained model in the registry.

    parent "brave-otter"        every parameter, the headline metrics of every stage
    ├── prepare, sft, … train   the stage's parameters, metrics, input hashes, live training curves
    └── evaluate
        ├── sft                 the same metric names for each model, tagged with its role
        └── dpo

The only package that imports mlflow. The store is SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one.
"""

from longreward.tasks.tracking.registry import CHAMPION_BEFORE, CHAMPION_NOW, champion, register
from longreward.tasks.tracking.run import DVC_TAG, UNKNOWN, Run, Span
from longreward.tasks.tracking.run_hierarchy import (
    PARENT,
    STUDY,
    close_killed_runs,
    find_or_create_parent,
    link_stage,
    log_model_run,
    parent_run,
    stage_run,
    study_run,
)
from longreward.tasks.tracking.store import TrackingUnavailable, store_uri

__all__ = [
    "CHAMPION_BEFORE",
    "CHAMPION_NOW",
    "DVC_TAG",
    "PARENT",
    "STUDY",
    "UNKNOWN",
    "Run",
    "Span",
    "TrackingUnavailable",
    "champion",
    "close_killed_runs",
    "find_or_create_parent",
    "link_stage",
    "log_model_run",
    "parent_run",
    "register",
    "stage_run",
    "store_uri",
    "study_run",
]
