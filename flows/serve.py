"""`longreward serve`: the Prefect UI, MLflow, the pipeline and its stages waiting to be triggered, until Ctrl-C.

All on the stores of this checkout, so that what `make run` and `dvc repro` did is there to be looked at, and a run
that is started in the UI reads and writes what they do.
"""

import os
import signal
import subprocess
import sys

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType

from flows import triggers
from flows.pipeline import pipeline
from longreward.errors import LongRewardError
from longreward.params import stage_names
from tasks.processes import end_group
from tasks.server import free_port, prefect_url
from tasks.tracking.store import experiment_id
from tasks.tracking.uris import store_uri

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
MLFLOW = (sys.executable, "-m", "mlflow", "server", "--workers", "1")


def main() -> None:
    try:
        url = prefect_url(port=free_port(PREFECT_PORT))
        store = experiment_id()  # made here where it is new: its server and the first run would both make it
    except LongRewardError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    port = free_port(MLFLOW_PORT)
    runs = f"http://127.0.0.1:{port}/#/experiments/{store}?workflowType=machine_learning"
    mlflow = subprocess.Popen(
        [*MLFLOW, "--port", str(port)],
        env={
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": store_uri(),  # not an argument, as `ps` shows those and it may hold a password
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nothing here uses its seven job processes
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _as_interrupt)
    os.environ["PREFECT_API_URL"] = url  # for the processes of the runs that the UI starts
    print(f"\n  Prefect  {url.removesuffix('/api')}\n  MLflow   {runs}\n", flush=True)
    print("Ctrl-C ends both.\n", flush=True)
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            serve(*deployments(), print_starting_message=False)
    except KeyboardInterrupt:
        pass
    finally:
        end_group(mlflow.pid)


def deployments() -> list[RunnerDeployment]:
    """The whole pipeline, "pipeline/all", and each stage alone, "pipeline/<stage>"."""
    flows = {"all": pipeline} | {name: getattr(triggers, name) for name in stage_names()}
    return [
        flow.to_deployment(name, tags=["longreward"], entrypoint_type=EntrypointType.MODULE_PATH)
        for name, flow in flows.items()
    ]


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
