"""A shard of sampling for a worker, and the policy as the stage has it meanwhile: a tokenizer and a window."""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import PolicyError, WorkerError
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import fingerprint
from longreward.models.policy import Policy, PolicyTokenizer, load_policy, load_tokenizer, policy_window
from longreward.models.sampling import SampleConfig, sample
from longreward.models.served_policy import ServedPolicy, check_truncated_chats, sample_served
from longreward.models.server_config import ServerConfig
from longreward.records import Example, Response
from longreward.tasks.policy_server import AnyPolicy, open_policy
from longreward.tasks.state import make_folder
from longreward.tasks.workers.cluster import Workers
from longreward.tasks.workers.shard_task import ShardResult
from longreward.tasks.workers.worker_ledger import WorkerContext, shard_of


@dataclass(frozen=True)
class DistantPolicy:
    """A policy that is loaded, or whose server is asked, by workers; prompts are measured here."""

    workers: Workers
    config: PolicyConfig
    server: ServerConfig
    path: Path
    text: PolicyTokenizer
    window: int
    served: ServedPolicy | None
    model: str | None
    """The fingerprint of the folder `path`."""

    def prompt_ids(self, context: str, query: str) -> list[int]:
        """The ids that the model continues."""
        return self.text.prompt_ids(context, query)

    @property
    def places(self) -> int:
        """Shards under way at once."""
        limit = self.server.max_concurrency if self.server.kind == "external" else self.workers.places
        return min(self.workers.places, limit)

    def refuse_cut(self, cut: Sequence[str]) -> None:
        """As `refuse_cut_chats`."""
        if self.served is not None:
            check_truncated_chats(self.served, cut)

    async def draw(self, name: str, examples: Sequence[Example], config: SampleConfig) -> list[list[Response]]:
        """The `config.n` responses to each example, from one worker."""
        server = self.server
        if server.kind == "external":  # one server for all
            server = server.model_copy(update={"max_concurrency": server.max_concurrency // self.places})
        errand = SampleErrand(self.config, server, self.path, self.model, config, list(examples))
        return (await self.workers.do(name, errand)).records


@asynccontextmanager
async def open_policy_of(
    workers: Workers | None, config: PolicyConfig, server: ServerConfig, path: str | Path, *, logs: Path
) -> AsyncIterator[AnyPolicy | DistantPolicy]:
    """`open_policy`, or, where there are workers, the policy that they sample from: no weights are loaded here."""
    if workers is None:
        async with open_policy(config, server, path, logs=logs) as policy:
            yield policy
        return
    folder = Path(path)
    model = fingerprint(folder) if folder.is_dir() else None
    if server.kind == "in_process":
        text, window = load_tokenizer(config, path), policy_window(config, path)
        if window is None:
            raise PolicyError(f"{path}: its config does not say how long a text may be; set policy.window")
        yield DistantPolicy(workers, config, server, folder, text, window, None, model)
        return
    async with open_policy(config, server, path, logs=logs) as served:
        assert isinstance(served, ServedPolicy), "its server is not this process"
        yield DistantPolicy(workers, config, server, folder, served.text, served.window, served, model)


@dataclass(frozen=True)
class SampleErrand:
    """`model` is the fingerprint of the folder `path`, which the worker must have as well."""

    policy: PolicyConfig
    server: ServerConfig
    path: Path
    model: str | None
    sample: SampleConfig
    items: Sequence[Example]

    @property
    def shard(self) -> str:
        """Named after the examples."""
        return shard_of(example.id for example in self.items)

    async def do(self, place: WorkerContext) -> ShardResult:
        """Gives the responses to each example."""
        if self.model is not None and (not self.path.is_dir() or fingerprint(self.path) != self.model):
            raise WorkerError(
                f"the folder {self.path.resolve()} is not there, or holds another model than the stage's: start the "
                "worker in the project's folder, or bring a copy of it up to date (`dvc pull`)"
            )
        if self.server.kind == "in_process":
            with _one_at_a_time:
                policy = _loaded(self.policy, self.path, self.model)
                return ShardResult(list(sample(policy, self.items, self.sample)), {})
        logs = make_folder(place.home / "servers" / self.shard)
        async with open_policy(self.policy, self.server, self.path, logs=logs) as served:
            assert isinstance(served, ServedPolicy), "its server is not this process"
            return ShardResult(await sample_served(served, self.items, self.sample), {})


def _loaded(config: PolicyConfig, path: Path, model: str | None) -> Policy:
    """Loaded once for all shards that this process does, and let go before another one is."""
    key = (config.model_dump_json(), str(path.resolve()), model)
    if key not in _policies:
        _policies.clear()
        _policies[key] = load_policy(config, path)
    return _policies[key]


_policies: dict[tuple[str, str, str | None], Policy] = {}
_one_at_a_time = threading.Lock()  # a worker of several threads has one model, and one GPU
