"""The stage's side: connect to a Dask cluster or start one, check the workers' versions, and submit shards.

If a worker is killed, Dask runs its shard on another one, which continues from the ledger of the first
(`worker_ledger.py`). As many shards run at once as the cluster had threads at the start, so that the judge's limits can
be divided among them.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError, WorkerError
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import fingerprint
from longreward.models.policy import MODEL_WINDOW_ADVICE, PolicyTokenizer, load_tokenizer, policy_window
from longreward.models.sampling import SampleConfig
from longreward.models.served_policy import ServedPolicy, check_truncated_chats
from longreward.models.server_config import ServerConfig
from longreward.params import Params, WorkersConfig, check_workers_installed
from longreward.records import Example, Response
from longreward.tasks.policy_server import AnyPolicy, open_policy
from longreward.tasks.shards import shard_task, shard_title
from longreward.tasks.workers.shard_tasks import (
    SampleShard,
    ShardResult,
    ShardTask,
    enter_project,
    run_shard,
    version_differences,
    versions,
    worker_name,
)
from longreward.tasks.workers.worker_ledger import (
    WorkerContext,
    merge_contents,
    read_leftover_ledgers,
    remove_ledgers,
)

if TYPE_CHECKING:
    from distributed import Client
    from prefect_dask import DaskTaskRunner


class Workers:
    """The workers of one stage."""

    def __init__(self, runner: "DaskTaskRunner", context: WorkerContext, ledger: Path, capacity: int) -> None:
        self.capacity = capacity
        """How many shards can run at once."""
        self.ledger = ledger
        self._runner = runner
        self._context = context
        self._results: list[ShardResult] = []

    async def run(self, name: str, task: ShardTask, *, limit_s: float | None = None) -> ShardResult:
        """Run a shard on a worker; its exchanges with the judge are in the project's ledger on return.

        Raises WorkerError if no worker can run it; a judge's or server's error keeps its type.
        """
        prefect_task = shard_task(name, shard_title.get(name), limit_s=limit_s)(run_shard)
        parameters = {"pickled": pickle.dumps(task), "context": self._context, "expected": versions()}
        future = self._runner.submit(prefect_task, parameters=parameters).wrapped_future
        try:
            result = await _wait_for(future)
        except BaseException:
            future.cancel()
            raise
        self._results.append(result)
        if result.ledger is not None:
            merge_contents([result.ledger], into=self.ledger)
        return result

    def figures(self) -> dict[str, float]:
        """Return the sums of the shards' metrics; for `concurrency` the mean."""
        total: dict[str, float] = {}
        for result in self._results:
            for name, value in result.metrics.items():
                total[name] = total.get(name, 0.0) + value
        if "concurrency" in total:
            total["concurrency"] /= len(self._results)
        return total


@asynccontextmanager
async def open_workers(params: Params, *, state: Path, ledger: Path) -> AsyncIterator[Workers | None]:
    """Open the workers that the section `workers` describes; None if the stage's own process runs the shards.

    The replies that earlier attempts left on workers are merged into `ledger` first. `state` is the stage's folder.
    Raises ConfigError if Dask is not installed, WorkerError if the scheduler or a worker is missing or the versions
    differ.
    """
    config = params.workers
    if config.kind == "none":
        yield None
        return
    check_workers_installed(config)
    context = WorkerContext.for_stage(state)
    with _task_runner(config, state) as runner:
        client = await asyncio.to_thread(_connect, runner, config)
        validate_workers(await _run_on_all(client, probe_worker))
        merge_contents(await _leftover_ledgers(client, context), into=ledger)
        workers = Workers(runner, context, ledger, sum((await asyncio.to_thread(client.nthreads)).values()))
        try:
            yield workers
        except BaseException:
            with suppress(OSError, TimeoutError):  # the cluster may be gone
                merge_contents(await _leftover_ledgers(client, context), into=ledger)
            raise
        with suppress(OSError, TimeoutError):
            await _run_on_all(client, _in_project, remove_ledgers, context)


@dataclass(frozen=True)
class WorkerInfo:
    """A worker and its versions."""

    name: str
    versions: dict[str, str]


def probe_worker(dask_worker: Any) -> WorkerInfo:
    """Return the worker's versions; Dask runs this on the worker and fills in the parameter by its name."""
    return WorkerInfo(worker_name(dask_worker), versions())


def validate_workers(workers: dict[str, WorkerInfo | Exception]) -> None:
    """Raise WorkerError, with a line for each, if workers have other versions than this process.

    `workers` has the workers' addresses as keys, and as values what `probe_worker` returned or raised.
    """
    expected = versions()
    errors = []
    for address, info in workers.items():
        if isinstance(info, Exception):
            errors.append(
                f"worker {address} cannot report its versions ({type(info).__name__}: {info}): is "
                "`longreward[dask]` installed there, in this version?"
            )
        elif differences := version_differences(info.versions, expected):
            errors.append(f"{info.name} has another version of {differences}: install the same there")
    if errors:
        raise WorkerError("\n  ".join(["not all workers can run the shards:", *errors]))


def _task_runner(config: WorkersConfig, state: Path) -> "DaskTaskRunner":
    from prefect_dask import DaskTaskRunner

    if config.address is not None:
        return DaskTaskRunner(address=config.address, client_kwargs={"timeout": config.start_limit_s})
    local = {
        "n_workers": config.count,
        "threads_per_worker": 1,
        "processes": True,
        "memory_limit": 0,  # by default Dask kills a worker whose model takes more than its share of the memory
        "dashboard_address": None,
        "local_directory": str(state / "dask"),
    }
    return DaskTaskRunner(cluster_kwargs=local, client_kwargs={"timeout": config.start_limit_s})


def _connect(runner: "DaskTaskRunner", config: WorkersConfig) -> "Client":
    scheduler = f"the scheduler {config.address}" if config.address else "the local Dask cluster"
    try:
        client: Client = runner.client
    except (OSError, TimeoutError) as error:
        raise WorkerError(f"{scheduler} cannot be reached ({error}): start it, or set workers.address") from error
    try:
        client.wait_for_workers(1 if config.address else config.count, timeout=config.start_limit_s)
    except TimeoutError as error:
        raise WorkerError(
            f"{scheduler}: no worker in {config.start_limit_s:g} s (workers.start_limit_s); start some with "
            f"`dask worker {config.address or '…'} --nthreads 1`"
        ) from error
    return client


async def _run_on_all(client: "Client", function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return for each worker's address the function's result, or the exception that it raised."""
    results: dict[str, Any] = await asyncio.to_thread(client.run, function, *arguments, on_error="return")
    return results


async def _leftover_ledgers(client: "Client", context: WorkerContext) -> list[bytes]:
    results = await _run_on_all(client, _in_project, read_leftover_ledgers, context)
    return [content for contents in results.values() if isinstance(contents, list) for content in contents]


def _in_project(function: Callable[[WorkerContext], Any], context: WorkerContext) -> Any:
    """Call a function in the project's folder, by which the state folder is found."""
    enter_project(context)
    return function(context)


async def _wait_for(future: Any) -> ShardResult:
    """Wait for a Dask future without blocking a thread."""
    from distributed import CancelledError, KilledWorker

    loop = asyncio.get_running_loop()
    finished = asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(finished.set))
    await finished.wait()
    try:
        state = future.result()
    except KilledWorker as error:
        raise WorkerError(
            f"a shard failed because several workers were killed while they ran it, the last of them "
            f"{error.last_worker}: does its log show that memory ran out? Finished shards are kept for the next attempt"
        ) from error
    except CancelledError as error:
        raise WorkerError(f"the scheduler dropped a shard ({error}): has it ended? Finished shards are kept") from error
    except Exception as error:  # the worker could not unpickle the task, or not reach Prefect's API
        cause = error.__cause__ or error
        raise WorkerError(
            f"the scheduler or a worker could not start a shard ({type(cause).__name__}: {cause}): both need "
            "`longreward[dask]` in this version, and workers must reach the server of PREFECT_API_URL"
        ) from error
    result: ShardResult = await state.aresult()
    return result


@dataclass(frozen=True)
class RemotePolicy:
    """A policy that workers load or request from its server; only the tokenizer is loaded in this process."""

    workers: Workers
    config: PolicyConfig
    server: ServerConfig
    path: Path
    encoder: PolicyTokenizer
    window: int
    served: ServedPolicy | None
    fingerprint: str | None
    """Of the folder `path`; None for a model on the hub."""

    @property
    def window_advice(self) -> str:
        """How to get a larger window, for messages."""
        return self.served.window_advice if self.served is not None else MODEL_WINDOW_ADVICE

    @property
    def capacity(self) -> int:
        """How many shards can run at once."""
        limit = self.server.max_concurrency if self.server.kind == "external" else self.workers.capacity
        return min(self.workers.capacity, limit)

    def check_truncated(self, cut: Sequence[str]) -> None:
        """See `check_truncated_chats`."""
        if self.served is not None:
            check_truncated_chats(self.served, cut)

    async def sample(self, name: str, examples: Sequence[Example], config: SampleConfig) -> list[list[Response]]:
        """Sample `config.n` responses to each example on one worker."""
        server = self.server
        if server.kind == "external":  # all shards share one server
            server = server.model_copy(update={"max_concurrency": server.max_concurrency // self.capacity})
        task = SampleShard(self.config, server, self.path, self.fingerprint, config, list(examples))
        return (await self.workers.run(name, task)).records


@asynccontextmanager
async def open_worker_policy(
    workers: Workers | None, config: PolicyConfig, server: ServerConfig, path: str | Path, *, logs: Path
) -> AsyncIterator[AnyPolicy | RemotePolicy]:
    """Open the policy that workers sample from, without its weights; without workers, see `open_policy`."""
    if workers is None:
        async with open_policy(config, server, path, logs=logs) as policy:
            yield policy
        return
    folder = Path(path)
    model = fingerprint(folder) if folder.is_dir() else None
    if server.kind == "in_process":
        encoder, window = load_tokenizer(config, path), policy_window(config, path)
        if window is None:
            raise PolicyError(f"{path}: the model's config has no context length; set policy.window")
        yield RemotePolicy(workers, config, server, folder, encoder, window, None, model)
        return
    async with open_policy(config, server, path, logs=logs) as served:
        assert isinstance(served, ServedPolicy), "the server is not this process"
        yield RemotePolicy(workers, config, server, folder, served.encoder, served.window, served, model)
