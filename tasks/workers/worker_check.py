"""Whether a worker can do this project's shards, looked at before it gets one; each fault names the worker."""

import functools
import hashlib
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import longreward
from longreward.errors import ConfigError, WorkerError
from longreward.judge import JudgeConfig
from longreward.judge.http_client import read_api_key
from longreward.tasks.workers.worker_ledger import WorkerContext, leftover_cache

DECIDING = ("torch", "transformers", "tokenizers", "bm25s", "prefect", "distributed", "cloudpickle", "pydantic")
NO_PART_OF_SHARDS = ("benchmarks", "corpus", "evaluation", "planning", "project", "training", "trust")
REACH_LIMIT_S = 10.0


@dataclass(frozen=True)
class WorkerRequirements:
    """What the stage wants to know of each worker."""

    place: WorkerContext
    prefect: str | None
    """The address of Prefect's API."""
    judge: JudgeConfig | None
    """Whose keys must be in the worker's environment."""


@dataclass(frozen=True)
class WorkerInfo:
    """A worker's answer."""

    name: str
    versions: Mapping[str, str]
    """Of Python, of the project's code (`code`) and of the packages that decide about records."""
    fault: str | None
    """Why it cannot work here."""
    answers: list[bytes]
    """Ledgers that an earlier try left on its machine."""


def probe_worker(asked: WorkerRequirements, dask_worker: Any) -> WorkerInfo:
    """Runs on the worker, beside its tasks; Dask fills in `dask_worker`."""
    fault = _fault(asked)
    return WorkerInfo(worker_name(dask_worker), versions(), fault, [] if fault else leftover_cache(asked.place))


def worker_name(worker: Any) -> str:
    """Where a Dask worker runs, for people."""
    return f"worker {worker.address} on {socket.gethostname()}"


def versions() -> dict[str, str]:
    """What must be the same on all machines."""
    found = {"code": code(), "python": ".".join(map(str, sys.version_info[:2]))}
    for name in DECIDING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@functools.cache
def code() -> str:
    """A hash of the code that shards run, as it is when this process first asks for it."""
    key = hashlib.blake2b(digest_size=8)
    for root in (Path(longreward.__file__).parent, Path(__file__).parent):
        for file in sorted(root.rglob("*")):
            inside = file.relative_to(root)
            if file.suffix in (".py", ".txt", ".yaml") and inside.parts[0] not in NO_PART_OF_SHARDS:
                key.update(f"\0{inside.as_posix()}\0".encode())
                key.update(file.read_bytes())
    return key.hexdigest()


def validate_workers(greetings: Mapping[str, WorkerInfo | Exception]) -> None:
    """Raises WorkerError, a line a worker, where one cannot do the shards; `greetings` by the workers' addresses."""
    ours = versions()
    faults = []
    for address, greeting in greetings.items():
        if isinstance(greeting, Exception):
            faults.append(
                f"worker {address} cannot greet the stage ({type(greeting).__name__}: {greeting}): is "
                "`longreward[dask]` installed there, in this version?"
            )
        elif other := [f"{k} {v}, here {ours[k]}" for k, v in greeting.versions.items() if v != ours[k]]:
            faults.append(f"{greeting.name} has another version of {'; '.join(other)}: install the same there")
        elif greeting.fault:
            faults.append(f"{greeting.name}: {greeting.fault}")
    if faults:
        raise WorkerError("\n  ".join(["not all workers can do the shards:", *faults]))


def _fault(asked: WorkerRequirements) -> str | None:
    if asked.judge is not None:
        try:
            for judge, _ in asked.judge.judges():
                read_api_key(judge)
        except ConfigError as error:
            return f"{error} (in the worker's own environment: keys are never sent)"
    return _out_of_reach(asked.prefect) if asked.prefect else None


def _out_of_reach(address: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=REACH_LIMIT_S):
            return None
    except urllib.error.HTTPError:
        return None  # it is there, and may want to know who asks
    except OSError as error:
        return (
            f"it cannot reach Prefect at {address} ({error}): start the pipeline with PREFECT_API_URL set to a server "
            "that all machines reach"
        )
