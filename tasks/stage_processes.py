"""Start `dvc repro` for the stages of a pipeline run, from a fork server where that is faster.

    preload_models(stages)                              as early as possible; optional
    async with fork_server(stages, environment=…):
        await run_in_group(["repro", "sft"], environment=…, start=running_fork_server("sft").start)

Without one, and where `dvc repro` is called in a shell, each stage is a new Python process.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from longreward.errors import StateError
from longreward.tasks.dvc_files import stage_entries
from longreward.tasks.fork_server import REPLY_BYTES
from longreward.tasks.processes import LINE_LIMIT_BYTES, GroupProcess

# What stages import, which takes nearly all of the time before their own work. Prefect reads its settings from the
# environment when it is imported, so these come after the address of its server is known.
LIBRARIES = (
    "dvc.cli",
    "dvc.commands.repro",
    "dvc.repo",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "prefect.artifacts",
    "prefect.flow_engine",
    "prefect.task_engine",
)
MODEL_LIBRARIES = ("torch", "transformers.generation.utils", "transformers.models.llama.modeling_llama")
TRAINING_LIBRARIES = ("transformers.trainer", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer")
MODEL_STAGES = frozenset({"sft", "sample", "train", "evaluate", "benchmark"})
TRAINING_STAGES = frozenset({"sft", "train"})
MODULE_COMMAND = re.compile(r"python -m [\w.]+")
# A driver that is initialized in a process cannot be used in its forks, and libraries may do so when imported.
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


class ForkServer:
    """The client of a server that was started with `connection`.

    `commands` are those of the stages that it can start, by stage.
    """

    def __init__(self, connection: socket.socket, commands: Mapping[str, str]) -> None:
        self._connection = connection
        self.commands = commands

    async def start(self, arguments: Sequence[str], environment: Mapping[str, str], *, direct: bool) -> GroupProcess:
        """Start `dvc repro … <stage>`; with `direct`, its stderr is that of this process, else its stdout."""
        read, write = os.pipe()
        request = {"arguments": list(arguments), "environment": dict(environment)}
        request["command"] = self.commands[arguments[-1]]
        stderr = sys.stderr.fileno() if direct else write
        socket.send_fds(self._connection, [json.dumps(request).encode()], [write, stderr])
        os.close(write)
        reader = asyncio.StreamReader(limit=LINE_LIMIT_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
        )
        return _ForkedProcess(await self.receive(), reader, self)

    async def receive(self) -> int:
        """Return the next number that the server sends; raises StateError if the server has ended."""
        reply = await asyncio.get_running_loop().sock_recv(self._connection, REPLY_BYTES)
        if not reply:
            raise StateError("the process that starts the stages has ended; the same command continues from there")
        return int.from_bytes(reply, "big", signed=True)


class _ForkedProcess:
    def __init__(self, pid: int, stdout: asyncio.StreamReader, server: ForkServer) -> None:
        self.pid, self.stdout, self._server = pid, stdout, server

    async def wait(self) -> int:
        return await self._server.receive()


@dataclass(frozen=True)
class _ServerProcess:
    process: "subprocess.Popen[bytes]"
    connection: socket.socket

    @classmethod
    def start(cls, stages: Collection[str]) -> Self:
        # SEQPACKET keeps messages apart that the server reads only after its imports.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "longreward.tasks.fork_server", str(theirs.fileno())),
                    *_model_libraries(stages),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the pipeline, which ends its stages in order
            )
        return cls(process, ours)

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait()


_preloaded: _ServerProcess | None = None
_server: ForkServer | None = None


def preload_models(stages: Collection[str]) -> None:
    """Start the fork server of the next `fork_server` of this process, with the model libraries of these stages.

    Without names, those of all stages. It runs in the current folder, imports them while Prefect starts, and ends with
    this process.
    """
    global _preloaded
    if commands := _forkable_commands(stages):
        _preloaded = _ServerProcess.start(commands)


@asynccontextmanager
async def fork_server(stages: Collection[str], *, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Start a fork server for these stages, which `reproduce` uses in the block, where several stages can share it."""
    global _server, _preloaded
    commands = _forkable_commands(stages)
    if not commands:
        yield
        return
    server, _preloaded = _preloaded or _ServerProcess.start(commands), None
    try:
        server.connection.setblocking(False)
        server.connection.send(json.dumps({"environment": dict(environment), "modules": LIBRARIES}).encode())
        _server = ForkServer(server.connection, commands)
        yield
    finally:
        _server = None
        server.stop()


def _forkable_commands(stages: Collection[str]) -> dict[str, str]:
    """Return the commands of these or (none) all stages that a fork server can start, where stages may be forked."""
    if not forks_stages():
        return {}
    entries = stage_entries()
    return {
        name: entries[name].command for name in stages or entries if MODULE_COMMAND.fullmatch(entries[name].command)
    }


def forks_stages() -> bool:
    """Return whether this machine is one on which stages may be forked."""
    return sys.platform == "linux" and not any(map(Path.exists, GPU_DEVICES))


def running_fork_server(stage: str) -> ForkServer | None:
    """Return the fork server of this process if there is one and it can start the stage."""
    return _server if _server is not None and stage in _server.commands else None


def _model_libraries(stages: Collection[str]) -> list[str]:
    libraries: list[str] = []
    if not MODEL_STAGES.isdisjoint(stages):
        libraries += MODEL_LIBRARIES
    if not TRAINING_STAGES.isdisjoint(stages):
        libraries += TRAINING_LIBRARIES
    return libraries
