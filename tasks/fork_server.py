"""A process that has imported the libraries of the stages, and forks `dvc repro` and the stage from itself.

    python -m longreward.tasks.fork_server <socket> <module> …        started by `tasks.stage_processes`

The imports take 3 CPU seconds in each stage, and 8 in one that trains. Only libraries are imported here: a stage's own
modules are read when it starts, as DVC records them. The server imports the modules of its command line, waits for the
first message, and imports those that need its environment. For each request it forks a process of a new session:

    server ── dvc repro --single-item sft     imports DVC's state only
              └── python -m longreward.flows.sft     forked before DVC starts, and waits until DVC would start it

The stage stays a child of DVC and in its process group, as without the server. DVC's own start of a command is replaced
where the command is exactly that of the stage; any other one (`accelerate launch …`) is started by DVC's shell.

    first message    {"environment": {…}, "modules": ["prefect.flow_engine", …]}
    request          {"arguments": ["repro", …], "command": "python -m longreward.flows.sft", "environment": {…}}, with
                     the descriptors for stdout and stderr
    reply            the pid of DVC's process, and at its end its exit code; 8 bytes each
"""

import gc
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

REPLY_BYTES = 8
MAX_MESSAGE_BYTES = 1 << 16


def serve(connection: socket.socket) -> int:
    """Answer requests, one after the other, until the client closes the connection; return the exit code.

    Returns in the server and in each forked process, so that all end as Python programs do.
    """
    gc.collect()
    gc.freeze()  # the collector would otherwise write to each page of these objects, and copy it, in each child
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 2)
        except ConnectionResetError:  # the client did not read the last reply: it was interrupted
            return 0
        if not message:
            return 0
        pid = os.fork()
        if pid == 0:
            connection.close()
            return _run_request(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(BrokenPipeError):  # the client has ended, and its stage ends with it
            connection.send(_encode(pid))
            connection.send(_encode(_wait(pid)))


def _run_request(request: dict[str, Any], stdout: int, stderr: int) -> int:
    os.setsid()
    os.dup2(stdout, sys.stdout.fileno())
    os.dup2(stderr, sys.stderr.fileno())
    os.environ.update(request["environment"])
    start, started_by = os.pipe()
    stage = os.fork()
    if stage == 0:
        os.close(started_by)
        return _run_stage(request["command"].split()[-1], start)
    os.close(start)
    return _run_dvc(request["arguments"], request["command"], stage, started_by)


def _run_stage(module: str, start: int) -> int:
    with os.fdopen(start) as pipe:
        options = pipe.read()
    if not options:  # DVC found the stage up to date, or has ended
        os._exit(0)
    process = json.loads(options)
    os.environ.clear()
    os.environ.update(process["env"])
    os.chdir(process["cwd"])
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _run_dvc(arguments: list[str], command: str, stage: int, started_by: int) -> int:
    from dvc.cli import main as dvc_main
    from dvc.stage import run as dvc_run
    from dvc.stage.exceptions import StageCmdFailedError

    from longreward.tasks.quiet_dvc import main as quiet_dvc_main
    from longreward.utils.console import is_verbose

    start_command = dvc_run._run
    pipe = os.fdopen(started_by, "w")

    def run(executable: str | None, cmd: str, **options: Any) -> None:
        if cmd != command or pipe.closed:
            start_command(executable, cmd, **options)
            return
        with pipe:
            json.dump({"cwd": options["cwd"], "env": options["env"]}, pipe)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as DVC does while a command runs
        try:
            if code := _wait(stage):
                raise StageCmdFailedError(cmd, code)
        finally:
            signal.signal(signal.SIGINT, handler)

    dvc_run._run = run
    logging.getLogger().handlers.clear()  # those of Prefect, which would repeat DVC's lines
    sys.argv = ["dvc", *arguments]  # DVC writes them into its locks
    try:
        return dvc_main() if is_verbose() else quiet_dvc_main()
    finally:
        if not pipe.closed:
            pipe.close()
            _wait(stage)


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _encode(number: int) -> bytes:
    return number.to_bytes(REPLY_BYTES, "big", signed=True)


def _import_libraries(connection: socket.socket, modules: list[str]) -> bool:
    """Import `modules`, then those of the first message; return whether there was one."""
    for name in modules:
        importlib.import_module(name)
    if not (message := connection.recv(MAX_MESSAGE_BYTES)):
        return False
    setup = json.loads(message)
    os.environ.update(setup["environment"])
    for name in setup["modules"]:
        importlib.import_module(name)
    return True


if __name__ == "__main__":
    client = socket.socket(fileno=int(sys.argv[1]))
    sys.exit(serve(client) if _import_libraries(client, sys.argv[2:]) else 0)
