"""Durable library calls: Prefect tasks with retries and shards, MLflow runs, and the `dvc` command.

Importing this package sets defaults in the environment before Prefect and MLflow read their settings: no telemetry,
no ephemeral Prefect server in each stage, log lines of the library in the Prefect UI, and no messages of other
libraries. Variables that the user has set stay.
"""

import os

from longreward.utils.console import quiet_libraries

_ENVIRONMENT = {
    "DASK_LOGGING__DISTRIBUTED": "warning",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "longreward",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
}

for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
if "OMP_WAIT_POLICY" not in os.environ:
    # How long torch's threads spin before they sleep. The default of 300,000 makes a small model 20 times as slow where
    # another process needs a core; without spinning it is half as fast on an idle machine
    # (docs/decisions/2026-11-27-openmp-threads.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
quiet_libraries()
