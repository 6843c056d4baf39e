"""`longreward serve`: the Prefect UI, MLflow, the pipeline and its stages waiting to be triggered, until Ctrl-C.

All on the stores of this checkout, so that what `make run` and `dvc repro` did is there to be looked at, and a run
that is started in the UI reads and writes what they do.
"""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import ExitStack

from prefect import aserve
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import temporary_settings
from prefect.types.entrypoint import EntrypointType

from longreward.errors import ConfigError, LongRewardError
from longreward.flows import triggers
from longreward.flows.pipeline import pipeline
from longreward.params import stage_names
from longreward.tasks.dvc_command import stage_entries
from longreward.tasks.pipeline_tasks import close_killed_flows
from longreward.tasks.prefect_server import (
    PrefectServer,
    check_port,
    check_server,
    free_port,
    login_file,
    prefect_server,
    running_server,
)
from longreward.tasks.processes import terminate_group, this_process
from longreward.tasks.server_access import LOCALHOST, allowed_hosts
from longreward.tasks.tracking import close_killed_runs
from longreward.tasks.tracking.store import experiment_id, is_server, store_uri
from longreward.utils.redaction import redact

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
MLFLOW = (sys.executable, "-m", "mlflow", "server", "--workers", "1")


def main(
    host: str = LOCALHOST, port: int | None = None, mlflow_port: int | None = None, allow: tuple[str, ...] = ()
) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal.

    `host`, `port` and `allow` are for Prefect, which asks for a login. MLflow has none here, so it listens on this
    machine alone. Ports that are not given are the usual ones, or free ones where those are taken.
    """
    for number in _end_signals():
        signal.signal(number, _raise_interrupt)
    try:
        with ExitStack() as stack:
            stage_entries()  # tells where this is no project, before anything is made
            server = _prefect(host, port, allow)
            stack.enter_context(temporary_settings(server.settings))
            asyncio.run(check_server(server))
            asyncio.run(close_killed_flows())
            os.environ.update(server.environment)  # for the processes of the runs that the UI starts
            close_killed_runs()
            experiment = experiment_id()  # made here where it is new: its server and the first run would both make it
            runs = _mlflow(stack, mlflow_port)
            login = login_file(server)
            print(f"\n  Prefect  {server.url.removesuffix('/api')}")
            if login:
                print(f"           log in with the line in {login}")
            print(f"  MLflow   {runs}/#/experiments/{experiment}?workflowType=machine_learning\n")
            print("Ctrl-C ends both.\n", flush=True)
            asyncio.run(_wait_for_triggers(deployments()))
    except LongRewardError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass


async def _wait_for_triggers(served: list[RunnerDeployment]) -> None:
    """Start runs that are triggered, until a signal comes."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    for number in _end_signals():
        # Through the event loop: an exception from a signal handler is lost where it interrupts a finalizer.
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await aserve(*served, print_starting_message=False)


def _prefect(host: str, port: int | None, allow: tuple[str, ...]) -> PrefectServer:
    chosen = host != LOCALHOST or port is not None or bool(allow)
    running = running_server()
    if chosen and running is not None:
        raise ConfigError(
            f"a Prefect server of this project runs at {running.url.removesuffix('/api')} already: end what uses it "
            "(another `longreward serve`, or a run), or leave --host, --port and --allow-host out to use it"
        )
    if port is not None:
        check_port(port, host)
    server = prefect_server(host=host, port=port if port is not None else free_port(PREFECT_PORT, host), allow=allow)
    if chosen and login_file(server) is None:
        raise ConfigError(
            f"PREFECT_API_URL names the server at {redact(server.url)}: unset it to start one with --host, --port or "
            "--allow-host"
        )
    return server


def _mlflow(stack: ExitStack, port: int | None) -> str:
    """The address of MLflow's UI: a tracking server of the user's, else one that is started here and ends with us."""
    store = store_uri()
    if is_server(store):
        return redact(store).rstrip("/")
    if port is not None:
        check_port(port, LOCALHOST)
    else:
        port = free_port(MLFLOW_PORT)
    names = sorted(name for name in allowed_hosts(LOCALHOST) if ":" not in name)
    origins = ",".join(f"http://{name}:{port}" for name in names)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "longreward.tasks.supervise",
            str(this_process()),
            *MLFLOW,
            "--host",
            LOCALHOST,
            "--port",
            str(port),
        ],
        env={
            **os.environ,
            # The address of the store may hold a password, and all users of a machine can read arguments.
            "MLFLOW_BACKEND_STORE_URI": store,
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(f"{name}:*" for name in names),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": origins,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nothing here uses its seven job processes
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(terminate_group, process.pid)
    return f"http://{LOCALHOST}:{port}"


def deployments() -> list[RunnerDeployment]:
    """The whole pipeline, "pipeline/all", and each stage alone, "pipeline/<stage>"."""
    flows = {"all": pipeline} | {name: getattr(triggers, name) for name in stage_names()}
    return [
        flow.to_deployment(name, tags=["longreward"], entrypoint_type=EntrypointType.MODULE_PATH)
        for name, flow in flows.items()
    ]


def _end_signals() -> list[signal.Signals]:
    """The signals that end the command; `nohup` ignores SIGHUP, and that is to stay."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _raise_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
