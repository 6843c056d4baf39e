"""Long lists of work in shards: each shard is one Prefect task, and a file that appears when it is done.

A stage that was killed finds the finished shards in its state folder and continues with the others. Prefect's server
records 20 to 35 tasks per second, whatever the client does: hence one task per shard, not per item.
"""

import asyncio
import logging
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar, overload

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import exponential_backoff
from pydantic import TypeAdapter

from longreward.errors import JudgeUnavailable, ServerUnavailable
from longreward.tasks.interruption import interruptible
from longreward.utils.jsonl import open_atomic
from longreward.utils.lazy_map import LazyMap
from longreward.utils.progress import show_progress

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
OnProgress = Callable[[int], None]
"""Called with the number of items of a shard that are done."""

shard_title: ContextVar[str] = ContextVar("shard_title")
"""The name of the shard that the current asyncio task runs."""

log = logging.getLogger(__name__)


async def run_in_shards(
    name: str,
    items: Sequence[T],
    work: Callable[[Sequence[T], OnProgress], Awaitable[Iterable[R]]],
    *,
    record: type[R],
    folder: Path,
    size: int,
    concurrency: int = 1,
    limit_s: float | None = None,
    retry_after_s: float = 10,
    remote: bool = False,
    detail: Callable[[], str] = lambda: "",
) -> "ShardRecords[R]":
    """Return the records that `work` makes of `items`, in order.

    A shard is retried twice, with growing pauses, if the judge or the policy's server was not available or the shard
    took too long; any other error stops all shards and is raised.

    Args:
        name: of the files, the tasks and the progress.
        work: gets at most `size` items and a callback for its progress, and returns records.
        record: the type of the records, a pydantic model or a dataclass.
        folder: where the files of finished shards are.
        concurrency: how many shards run at once.
        limit_s: the time limit of a shard; it interrupts only work that awaits.
        remote: whether `work` runs each shard as a `shard_task` on another machine.
        detail: what the progress shows beside the finished items; see `show_progress`.
    """
    adapter = TypeAdapter(record)
    shards = [items[start : start + size] for start in range(0, len(items), size)]
    files = [folder / f"{name}-{size}-{index:05d}.jsonl" for index in range(len(shards))]
    pending = [index for index, file in enumerate(files) if not file.exists()]
    if len(pending) < len(files):
        log.info("%s: %d of %d shards are there already", name, len(files) - len(pending), len(files))
    done = len(items) - sum(len(shards[index]) for index in pending)
    in_progress: dict[int, int] = {}  # items done of each shard under way

    with show_progress(name, detail=detail) as update:
        update(done, len(items))

        async def run_shard(number: int) -> None:
            index = number - 1

            def on_progress(count: int) -> None:
                in_progress[index] = count
                update(done + sum(in_progress.values()), len(items))

            shard_title.set(f"{name}, shard {number} of {len(shards)}")
            with interruptible():  # sampling and retrieval do not await
                records = await work(shards[index], on_progress)
            with open_atomic(files[index]) as file:
                file.writelines(adapter.dump_json(record).decode() + "\n" for record in records)

        title = f"{name}, shard {{number}} of {len(shards)}"  # Prefect fills in the parameter
        run = run_shard if remote else shard_task(name, title, limit_s=limit_s, retry_after_s=retry_after_s)(run_shard)
        indices = iter(pending)

        async def run_next_shards() -> None:
            nonlocal done
            for index in indices:  # shared by all
                await run(index + 1)
                done += len(shards[index])
                in_progress.pop(index, None)
                update(done + sum(in_progress.values()), len(items))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(run_next_shards())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    return ShardRecords(files, adapter)


class ShardRecords(Sequence[R], Generic[R]):
    """The records of finished shards, read from their files on access."""

    def __init__(self, files: Sequence[Path], adapter: TypeAdapter[R]) -> None:
        self._files, self._adapter = files, adapter

    def __iter__(self) -> Iterator[R]:
        for file in self._files:
            with file.open(encoding="utf-8") as lines:
                yield from map(self._adapter.validate_json, lines)

    def __len__(self) -> int:
        return len(self._offsets[0])

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        if isinstance(index, slice):
            return LazyMap(self.__getitem__, range(len(self))[index])
        file_indices, offsets = self._offsets
        with self._files[file_indices[index]].open("rb") as file:
            file.seek(offsets[index])
            return self._adapter.validate_json(file.readline())

    @cached_property
    def _offsets(self) -> "tuple[array[int], array[int]]":
        """The index of its file and the offset there of each record."""
        file_indices, offsets = array("l"), array("q")
        for index, path in enumerate(self._files):
            offset = 0
            with path.open("rb") as file:
                for line in file:
                    file_indices.append(index)
                    offsets.append(offset)
                    offset += len(line)
        return file_indices, offsets


def delete_shards(folder: Path, name: str) -> None:
    """Delete the finished shards of this name, so that the next try of the stage does their work again."""
    for file in folder.glob(f"{name}-*.jsonl"):
        file.unlink(missing_ok=True)


def shard_task(
    name: str, title: str, *, limit_s: float | None = None, retry_after_s: float = 10
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make an async function the Prefect task of a shard, with the retries of `run_in_shards`.

    `title` is the name of its runs, in which Prefect replaces the function's parameters in braces.
    """
    return task(
        name=f"{name} shard",
        task_run_name=title,
        retries=2,
        retry_delay_seconds=exponential_backoff(retry_after_s),
        retry_jitter_factor=0.5,
        retry_condition_fn=_is_transient,
        timeout_seconds=limit_s,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


async def _is_transient(task: object, run: object, state: State[object]) -> bool:
    """Whether another try may succeed; not after a wrong setting or a refused key."""
    return isinstance(await state.aresult(raise_on_failure=False), JudgeUnavailable | ServerUnavailable | TimeoutError)
