"""One shard as a worker does it: unpacked there, done there, and its errors told with the worker's name."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from longreward.errors import JudgeError, LongRewardError, ServerRefused, ServerUnavailable, WorkerError
from longreward.tasks.flow_runner import configure_logging
from longreward.tasks.workers.worker_check import code, worker_name
from longreward.tasks.workers.worker_ledger import WorkerContext


@dataclass(frozen=True)
class ShardResult:
    """What comes back of a shard."""

    records: list[Any]
    """In the order of its items."""
    figures: Mapping[str, float]
    answers: bytes | None = None
    """The worker's ledger, where the stage cannot read the file itself."""


class ShardTask(Protocol):
    """All that a worker needs for a shard, and no key: those are in the worker's environment."""

    @property
    def shard(self) -> str:
        """A name that is the same for the same items, in whatever try."""
        ...

    async def do(self, place: WorkerContext) -> ShardResult:
        """Runs on the worker."""
        ...


async def run_shard(packed: bytes, place: WorkerContext, code_there: str) -> ShardResult:
    """The body of a shard's Prefect task. A packed errand is opaque to Prefect and Dask, which would look into it.

    Raises WorkerError where the worker cannot do it; a judge's or a server's error keeps its kind, since another try
    may help.
    """
    from distributed import get_worker

    configure_logging()
    name = worker_name(get_worker())
    if code() != code_there:
        raise WorkerError(f"{name} has another version of the project: install there what the stage runs with")
    try:
        if place.is_seen and os.getcwd() != str(place.project):
            os.chdir(place.project)  # paths in params.yaml are relative to it
        errand: ShardTask = pickle.loads(packed)
        return await errand.do(place)
    except (JudgeError, ServerUnavailable, ServerRefused) as error:
        raise type(error)(f"{name}: {error}") from None
    except TimeoutError:
        raise
    except LongRewardError as error:
        raise WorkerError(f"{name}: {type(error).__name__}: {error}") from None
    except Exception as error:  # whatever it is, it says where: a traceback alone would not
        raise WorkerError(f"{name}: {type(error).__name__}: {error}") from error
