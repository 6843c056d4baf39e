"""The worker's side: what a shard of scoring or sampling needs, and how a worker runs it."""

import functools
import hashlib
import os
import pickle
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import longreward
from longreward.errors import JudgeError, LongRewardError, ServerRefused, ServerUnavailable, WorkerError
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.budget import Budget
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.usage import PricesConfig
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import fingerprint
from longreward.models.policy import Policy, load_policy
from longreward.models.sampling import SampleConfig, sample
from longreward.models.served_policy import ServedPolicy, sample_served
from longreward.models.server_config import ServerConfig
from longreward.planning.dry_run import DryRunJudge
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, Scorer, open_scorer, score_examples
from longreward.tasks.flow_runner import configure_logging
from longreward.tasks.policy_server import open_policy
from longreward.tasks.state import make_folder
from longreward.tasks.workers.worker_ledger import WorkerContext, create_worker_ledger, shard_key

Items = Sequence[tuple[Example, Sequence[Response]]]
LIMITS = ("max_concurrency", "requests_per_minute", "tokens_per_minute")
# Packages whose version can change a record, or on whose version the cluster depends.
CHECKED_PACKAGES = ("torch", "transformers", "tokenizers", "bm25s", "prefect", "distributed", "cloudpickle", "pydantic")


@dataclass(frozen=True)
class ShardResult:
    """The result of a shard."""

    records: list[Any]
    """In the order of the shard's items."""
    metrics: Mapping[str, float]
    ledger: bytes | None = None
    """The content of the worker's ledger, where the shard used a judge."""


class ShardTask(Protocol):
    """All that a worker needs for a shard, except API keys, which are read from the worker's environment."""

    async def run(self, context: WorkerContext) -> ShardResult:
        """Process the shard on the worker."""
        ...


async def run_shard(pickled: bytes, context: WorkerContext, expected: Mapping[str, str]) -> ShardResult:
    """Run a pickled ShardTask; this is the body of the shard's Prefect task.

    The task is pickled by the stage, because Prefect and Dask would otherwise walk through its thousands of records.
    Raises WorkerError, with the worker's name, if the worker has other versions than `expected` or the task fails.
    Errors of a judge or server keep their type, since Prefect retries them.
    """
    from distributed import get_worker

    configure_logging()
    name = worker_name(get_worker())
    if differences := version_differences(versions(), expected):  # the worker may have joined after the stage's check
        raise WorkerError(f"{name} has another version of {differences}: install the stage's version there")
    try:
        enter_project(context)
        task: ShardTask = pickle.loads(pickled)
        return await task.run(context)
    except (JudgeError, ServerUnavailable, ServerRefused) as error:
        raise type(error)(f"{name}: {error}") from None
    except TimeoutError:
        raise
    except Exception as error:  # any other: without the worker's name, nobody knows where to look
        cause = None if isinstance(error, LongRewardError) else error
        raise WorkerError(f"{name}: {type(error).__name__}: {error}") from cause


def worker_name(worker: Any) -> str:
    """Return the address and host of a Dask worker."""
    return f"worker {worker.address} on {socket.gethostname()}"


def enter_project(context: WorkerContext) -> None:
    """Change to the project's folder if this machine has it, since paths in `params.yaml` are relative to it."""
    if context.project.is_dir():
        os.chdir(context.project)


def versions() -> dict[str, str]:
    """Return the versions of longreward's code, Python and the packages that must be the same on all machines."""
    installed = {"longreward": code_hash(), "python": ".".join(map(str, sys.version_info[:2]))}
    for name in CHECKED_PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def version_differences(installed: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Describe the differences; "" if there is none."""
    return "; ".join(
        f"{name} ({installed.get(name)}, the stage has {version})"
        for name, version in expected.items()
        if installed.get(name) != version
    )


@functools.cache
def code_hash() -> str:
    """Return a hash of longreward's modules and prompts, at the time of the first call in this process.

    It is the same for a checkout and a wheel of the same code. The version number does not change during development.
    """
    root = Path(longreward.__file__).parent
    paths = []
    # `Path.rglob` does not follow symbolic links, and `flows` and `tasks` are links in a checkout.
    for folder, _, names in os.walk(root, followlinks=True):
        path = Path(folder)
        paths += [path / name for name in names if name.endswith(".py") or path.name == "prompt_files"]
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(paths):
        digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ScoreShard:
    """Score the responses to some prompts."""

    judge: JudgeConfig
    """With this shard's share of the judge's limits (`divide_limits`)."""
    score: ScoreConfig
    prices: PricesConfig
    items: Items
    cached: Sequence[Exchange]
    """The exchanges about these items that the project's ledger holds."""

    async def run(self, context: WorkerContext) -> ShardResult:
        """Return a ScoredExample for each item; every reply is in the worker's ledger before the next request."""
        ledger = create_worker_ledger(context, shard_key(example.id for example, _ in self.items), self.cached)
        with Budget(prices=self.prices) as budget:
            async with (
                open_judge(self.judge, ledger=ledger, budget=budget) as judge,
                open_scorer(self.score, ledger=ledger) as scorer,
            ):
                records = [scored async for scored in score_examples(judge, scorer, self.items)]
                metrics = judge.metrics() | scorer.metrics() | budget.metrics()
        return ShardResult(records, metrics, ledger.read_bytes())


def divide_limits(judge: JudgeConfig, shards: int) -> JudgeConfig:
    """Return the judge's settings for one of so many concurrent shards: an equal share of each limit, at least 1."""

    def divided(member: JudgeConfig) -> dict[str, int]:
        limits = {name: getattr(member, name) for name in LIMITS}
        return {name: max(limit // shards, 1) for name, limit in limits.items() if limit is not None}

    return judge.map_judges(divided)


def max_concurrent_shards(judge: JudgeConfig, capacity: int) -> int:
    """Return how many shards can run at once if each has a share of at least 1 of every limit."""
    limits: list[int | None] = [getattr(config, name) for config, _ in judge.judges() for name in LIMITS]
    return min([capacity, *(limit for limit in limits if limit is not None)])


async def cached_exchanges(judge: JudgeConfig, score: ScoreConfig, items: Items, *, ledger: Path) -> list[Exchange]:
    """Return the exchanges about these items that the ledger holds, found by a dry run of the scoring.

    The dry run uses the strategy `full`: which requests an adaptive strategy makes depends on replies that may be
    missing.
    """
    recording = _RecordingLedger(ledger)
    full = score.model_copy(update={"strategy": "full"})
    async with DryRunJudge(judge, ledger=recording) as dry_run, Scorer(full) as scorer:
        for example, responses in items:
            await scorer.score(dry_run, example, responses)
    return recording.served


class _RecordingLedger(Ledger):
    """A ledger that remembers which exchanges it has served."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.served: list[Exchange] = []

    def find(self, request_id: str) -> list[Exchange]:
        exchanges = super().find(request_id)
        self.served += exchanges
        return exchanges


@dataclass(frozen=True)
class SampleShard:
    """Sample responses to some prompts."""

    policy: PolicyConfig
    server: ServerConfig
    path: Path
    fingerprint: str | None
    """Of the folder `path`, which the worker must have with the same content; None for a model on the hub."""
    sample: SampleConfig
    items: Sequence[Example]

    async def run(self, context: WorkerContext) -> ShardResult:
        """Return the responses to each example."""
        if self.fingerprint is not None and (not self.path.is_dir() or fingerprint(self.path) != self.fingerprint):
            raise WorkerError(
                f"the folder {self.path.resolve()} is missing, or holds another model than the stage's: start the "
                "worker in the project's folder, or update the copy of the project (`dvc pull`)"
            )
        if self.server.kind == "in_process":
            # Loaded once for all shards of this process; the previous model is released first.
            key = (self.policy.model_dump_json(), str(self.path.resolve()), self.fingerprint)
            with _model_lock:
                if key not in _policies:
                    _policies.clear()
                    _policies[key] = load_policy(self.policy, self.path)
                return ShardResult(list(sample(_policies[key], self.items, self.sample)), {})
        logs = make_folder(context.ledger_folder / "servers" / shard_key(example.id for example in self.items))
        async with open_policy(self.policy, self.server, self.path, logs=logs) as served:
            assert isinstance(served, ServedPolicy), "the server is not this process"
            return ShardResult(await sample_served(served, self.items, self.sample), {})


_policies: dict[tuple[str, str, str | None], Policy] = {}
_model_lock = threading.Lock()  # a worker with several threads has one model on one GPU
