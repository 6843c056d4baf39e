"""Library calls made durable: Prefect tasks with retries, time limits and shards; MLflow runs; DVC's command.

The first import settles the surroundings, before Prefect and MLflow read their settings: nothing phones home, no
Prefect server starts by itself in a stage (`tasks.prefect_server` keeps one for all), and the library's log lines
reach the Prefect UI. What the user has set stays.
"""

import os

_SURROUNDINGS = {
    "DASK_LOGGING__DISTRIBUTED": "warning",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads of torch leave the cores to others: faster where cores are few
    "PREFECT_LOGGING_EXTRA_LOGGERS": "longreward,tasks",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
}

for _name, _value in _SURROUNDINGS.items():
    os.environ.setdefault(_name, _value)
