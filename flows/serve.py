"""`longreward serve`: the Prefect UI, MLflow, and deployments of the pipeline and its stages, until Ctrl-C.

Both servers use the stores of this checkout: they show the runs of `longreward run` and `dvc repro`, and a run that is
triggered in the UI reads and writes the same files.
"""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Any, Self

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.settings import temporary_settings
from prefect.types.entrypoint import EntrypointType

from longreward.errors import ConfigError
from longreward.flows import triggers
from longreward.flows.pipeline import pipeline
from longreward.params import stage_names
from longreward.tasks.dvc_files import stage_entries
from longreward.tasks.flow_runs import close_killed_flows
from longreward.tasks.prefect_server import PrefectServer, check_port, check_server, free_port, prefect_server
from longreward.tasks.processes import start_supervised, terminate_group
from longreward.tasks.server_access import LOCALHOST, allowed_hosts
from longreward.tasks.tracking.run_hierarchy import close_killed_runs
from longreward.tasks.tracking.store import experiment_id, is_server, store_uri
from longreward.tasks.ui_links import publish_mlflow
from longreward.utils.redaction import redact

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
MLFLOW = (sys.executable, "-m", "mlflow", "server", "--workers", "1")


def serve(
    host: str = LOCALHOST, port: int | None = None, mlflow_port: int | None = None, allow_hosts: tuple[str, ...] = ()
) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal.

    `host`, `port` and `allow_hosts` are for Prefect, which requires a login. MLflow has no login, so it listens on this
    machine only. A port of None is the usual one, or a free one if that is in use.
    """
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)  # Python drops an exception that a handler raises in a finalizer or a weakref callback
        raise KeyboardInterrupt

    for number in _end_signals():
        signal.signal(number, interrupt)
    try:
        with ExitStack() as stack:
            stage_entries()  # fails outside a project, before anything is created
            server = _start_prefect(host, port, allow_hosts)
            stack.enter_context(temporary_settings(server.settings))
            asyncio.run(check_server(server))
            asyncio.run(close_killed_flows())
            os.environ.update(server.environment)  # for the processes of triggered runs
            close_killed_runs()
            experiment = experiment_id()  # create it now: MLflow's server and the first run would both try to
            mlflow_url = _start_mlflow(stack, mlflow_port)
            stack.enter_context(publish_mlflow(mlflow_url))
            print(f"\n  Prefect  {server.url.removesuffix('/api')}")
            if server.auth_file:
                print(f"           log in with the line in {server.auth_file}")
            print(f"  MLflow   {mlflow_url}/#/experiments/{experiment}?workflowType=machine_learning\n")
            print("Ctrl-C stops both.\n", flush=True)
            # Outside the event loop: within it, `to_deployment` returns a coroutine (Prefect 3.8).
            asyncio.run(_run_triggered(create_deployments(), received))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass


async def _run_triggered(deployments: list[RunnerDeployment], received: list[int]) -> None:
    """Start the triggered runs, until a signal arrives or if one is in `received`."""
    runner = _Runner()
    for number in _end_signals():
        asyncio.get_running_loop().add_signal_handler(number, runner.request_stop)
    for deployment in deployments:
        if received or runner.stop_requested:
            return
        await runner.aadd_deployment(deployment)
    await runner.start()


class _Runner(Runner):
    """A runner that ends at a signal, but not before it has started.

    A cancellation while Prefect 3.8 starts it would skip its clean-up. Once started, it waits for its task group alone,
    and a cancellation ends the triggered runs in order.
    """

    stop_requested = False

    def request_stop(self) -> None:
        """Cancel `start` with the first signal; another one would interrupt the end of the triggered runs."""
        first, self.stop_requested = not self.stop_requested, True
        if first and self.started:
            self._start_task.cancel()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._start_task = task
        if self.stop_requested:
            task.cancel()
        return self

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """Leave SIGTERM to the event loop: Prefect's own handler (3.8) does not await a coroutine that it calls."""


def _start_prefect(host: str, port: int | None, allow_hosts: tuple[str, ...]) -> PrefectServer:
    if port is not None:
        check_port(port, host)
    chosen_port = port if port is not None else free_port(PREFECT_PORT, host)
    server = prefect_server(host=host, port=chosen_port, allow=allow_hosts)
    if server.auth_file is None and (host != LOCALHOST or port is not None or allow_hosts):
        raise ConfigError(
            f"PREFECT_API_URL names the server at {redact(server.url)}: unset it to start one with --host, --port or "
            "--allow-host"
        )
    return server


def _start_mlflow(stack: ExitStack, port: int | None) -> str:
    """Return the address of MLflow's UI: the user's tracking server, or one that is started here."""
    store = store_uri()
    if is_server(store):
        return redact(store).rstrip("/")
    if port is not None:
        check_port(port, LOCALHOST)
    else:
        port = free_port(MLFLOW_PORT)
    names = sorted(name for name in allowed_hosts(LOCALHOST) if ":" not in name)
    process = start_supervised(
        [*MLFLOW, "--host", LOCALHOST, "--port", str(port)],
        output=subprocess.DEVNULL,
        environment={
            **os.environ,
            # In the environment: the store's address may contain a password, and all users can read arguments.
            "MLFLOW_BACKEND_STORE_URI": store,
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(f"{name}:*" for name in names),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in names),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its seven job processes are not used
        },
    )
    stack.callback(terminate_group, process.pid)
    return f"http://{LOCALHOST}:{port}"


def create_deployments() -> list[RunnerDeployment]:
    """Create the deployments of the pipeline, "pipeline/all", and of each stage, "pipeline/<stage>"."""
    flows = {"all": pipeline} | {name: getattr(triggers, name) for name in stage_names()}
    return [
        flow.to_deployment(name, tags=["longreward"], entrypoint_type=EntrypointType.MODULE_PATH)
        for name, flow in flows.items()
    ]


def _end_signals() -> list[signal.Signals]:
    """Return the signals that stop the command, without those that are ignored, such as SIGHUP under `nohup`."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


if __name__ == "__main__":
    serve()
