"""MLflow: one parent run an experiment, one child run a stage, the trained model in the registry.

    parent "brave-otter"        every parameter, the headline figures of every stage
    ├── prepare, sft, … train   the stage's parameters, figures, input hashes, live training curves
    └── evaluate
        ├── sft                 the same metric names for each model, tagged with its role
        └── dpo

The only package that imports mlflow. The store is SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one.
"""

from longreward.tasks.tracking.registry import CHAMPION_BEFORE, champion, register
from longreward.tasks.tracking.run import UNKNOWN, Run
from longreward.tasks.tracking.run_hierarchy import (
    PARENT,
    STUDY,
    close_killed_runs,
    code_tags,
    link_stage,
    model_run,
    parent_of_this_process,
    parent_run,
    stage_run,
    study_run,
)
from longreward.tasks.tracking.store import TrackingUnavailable, store_uri

__all__ = [
    "CHAMPION_BEFORE",
    "PARENT",
    "STUDY",
    "UNKNOWN",
    "Run",
    "TrackingUnavailable",
    "champion",
    "close_killed_runs",
    "code_tags",
    "link_stage",
    "model_run",
    "parent_of_this_process",
    "parent_run",
    "register",
    "stage_run",
    "store_uri",
    "study_run",
]
