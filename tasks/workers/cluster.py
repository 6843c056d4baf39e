"""A Dask cluster as the stage sees it: opened or started, its workers greeted, one Prefect task a shard sent there.

A shard whose worker is killed goes to another one by Dask's own doing, and goes on from what its first worker was
answered (`tasks.workers.worker_ledger`). As many shards are under way as there were threads at the start, so that
limits of the judge can be shared out among them.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import WorkerError
from longreward.params import Params
from longreward.tasks.shards import shard_task
from longreward.tasks.workers.shard_task import ShardResult, ShardTask, run_shard
from longreward.tasks.workers.worker_check import WorkerInfo, WorkerRequirements, code, probe_worker, validate_workers
from longreward.tasks.workers.worker_ledger import WorkerContext, leftover_cache, merge_cache
from longreward.workers import WorkersConfig, check_installed

if TYPE_CHECKING:
    from distributed import Client
    from prefect_dask import DaskTaskRunner


class Workers:
    """The workers of one stage, each known to be able to do its shards."""

    def __init__(self, runner: "DaskTaskRunner", place: WorkerContext, ledger: Path, places: int) -> None:
        self.places = places
        """Shards that can be under way at once."""
        self.ledger = ledger
        self._runner = runner
        self._place = place
        self._figures: list[Mapping[str, float]] = []

    async def do(self, name: str, errand: ShardTask, *, limit_s: float | None = None) -> ShardResult:
        """Has one worker do the shard; its answers of the judge are in the project's ledger when this returns.

        Raises WorkerError where no worker can do it, else what the work raises.
        """
        task = shard_task(name, limit_s=limit_s)(run_shard)
        parameters = {"packed": pickle.dumps(errand), "place": self._place, "code_there": code()}
        future = self._runner.submit(task, parameters=parameters)
        try:
            done = await _outcome(future.wrapped_future)
        except BaseException:
            future.wrapped_future.cancel()
            raise
        self._figures.append(done.figures)
        merge_cache(self._place, self.ledger, [done.answers] if done.answers else [], shard=errand.shard)
        return done

    def figures(self) -> dict[str, float]:
        """Sums over all shards; `concurrency` is the mean of them."""
        total: dict[str, float] = {}
        for figures in self._figures:
            for name, value in figures.items():
                total[name] = total.get(name, 0.0) + value
        if "concurrency" in total:
            total["concurrency"] /= len(self._figures)
        return total


@asynccontextmanager
async def open_workers(
    params: Params, *, state: Path, ledger: Path, judged: bool = False
) -> AsyncIterator[Workers | None]:
    """The workers that `workers` describes; None where the stage's own process does the work.

    `state` is the stage's folder. What earlier tries left with the workers is in `ledger` when this begins, and what
    this one leaves when it ends. Raises ConfigError where Dask is not installed, WorkerError where there is no
    scheduler or worker or one cannot do the shards, as for want of a key where they are to be `judged`.
    """
    config = params.workers
    if config.kind == "none":
        yield None
        return
    check_installed(config)
    from prefect.settings import PREFECT_API_URL

    place = WorkerContext.make(state)
    asked = WorkerRequirements(place, PREFECT_API_URL.value(), params.judge if judged else None)
    with _runner(config, state) as runner:
        client = await asyncio.to_thread(_connected, runner, config)
        greetings = await _everywhere(client, probe_worker, asked)
        validate_workers(greetings)
        left = [answers for greeting in greetings.values() for answers in _answers(greeting)]
        merge_cache(place, ledger, left)
        workers = Workers(runner, place, ledger, sum((await asyncio.to_thread(client.nthreads)).values()))
        finished = False
        try:
            yield workers
            finished = True
        finally:
            with suppress(OSError, TimeoutError):  # a cluster that is gone has nothing to give
                lists = await _everywhere(client, leftover_cache, place, forget=finished)
                merge_cache(place, ledger, [each for some in lists.values() for each in _listed(some)])


def _runner(config: WorkersConfig, state: Path) -> "DaskTaskRunner":
    from prefect_dask import DaskTaskRunner

    if config.address is not None:
        return DaskTaskRunner(address=config.address, client_kwargs={"timeout": config.start_limit_s})
    local = {
        "n_workers": config.count,
        "threads_per_worker": 1,
        "processes": True,
        "memory_limit": 0,  # Dask would end a worker that holds a model of more than its share of the memory
        "dashboard_address": None,
        "local_directory": str(state / "dask"),
    }
    return DaskTaskRunner(cluster_kwargs=local, client_kwargs={"timeout": config.start_limit_s})


def _connected(runner: "DaskTaskRunner", config: WorkersConfig) -> "Client":
    where = f"the scheduler {config.address}" if config.address else "the workers of this machine"
    try:
        client: Client = runner.client
    except (OSError, TimeoutError) as error:
        raise WorkerError(f"{where} cannot be reached ({error}): start it, or set workers.address") from error
    try:
        client.wait_for_workers(1 if config.address else config.count, timeout=config.start_limit_s)
    except TimeoutError as error:
        raise WorkerError(
            f"{where}: no worker came in {config.start_limit_s:g} s (workers.start_limit_s); start some with "
            f"`dask worker {config.address or '…'} --nthreads 1`"
        ) from error
    return client


async def _everywhere(client: "Client", what: Callable[..., Any], *arguments: Any, **named: Any) -> dict[str, Any]:
    """What each worker gives, or the exception that it raises."""
    found: dict[str, Any] = await asyncio.to_thread(client.run, what, *arguments, on_error="return", **named)
    return found


async def _outcome(future: Any) -> ShardResult:
    """Waits without holding a thread."""
    from distributed import CancelledError, KilledWorker

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    await ended.wait()
    try:
        state = future.result()
    except KilledWorker as error:
        raise WorkerError(
            f"a shard was given up after it had ended several workers, the last of them {error.last_worker}: look at "
            "its log, whether its memory was too small; finished shards are kept, and the stage goes on from them"
        ) from error
    except CancelledError as error:
        raise WorkerError(f"the scheduler dropped a shard ({error}): has it ended? Finished shards are kept") from error
    except Exception as error:  # it could not even be unpacked, as on a worker without this project
        why = error.__cause__ or error
        raise WorkerError(
            f"the scheduler or a worker could not begin a shard ({type(why).__name__}: {why}): "
            "`longreward[dask]` must be installed for both as it is here"
        ) from error
    done: ShardResult = await state.aresult()
    return done


def _answers(greeting: WorkerInfo | Exception) -> list[bytes]:
    return [] if isinstance(greeting, Exception) else greeting.answers


def _listed(answers: list[bytes] | Exception) -> list[bytes]:
    return [] if isinstance(answers, Exception) else answers
