"""Long lists of work in shards of hundreds: each shard is one Prefect task, and a file that appears when it is done.

A stage that was killed finds the finished shards in its state folder and goes on with the others. The server records
20 to 35 tasks a second, whatever the client does: hence a task for a shard and never for an item.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import exponential_backoff
from pydantic import TypeAdapter

from longreward.errors import JudgeUnavailable, ServerUnavailable
from longreward.utils.jsonl import open_atomic

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
OnProgress = Callable[[int], None]

log = logging.getLogger(__name__)


async def run_in_shards(
    name: str,
    items: Sequence[T],
    work: Callable[[Sequence[T], OnProgress], Awaitable[Iterable[R]]],
    *,
    record: type[R],
    folder: Path,
    size: int,
    at_once: int = 1,
    limit_s: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    retry_after_s: float = 10,
    elsewhere: bool = False,
) -> Iterator[R]:
    """What `work` makes of `items`, in order, read back from the shards' files one record at a time.

    `work` gets at most `size` items and returns records of type `record` (a pydantic model or a dataclass); meanwhile
    it may tell how many of its items are done, for the progress. A shard is tried again, twice with growing pauses,
    where the judge or the policy's server was not available or the shard took longer than `limit_s`, which holds for
    work that awaits; any other error stops all shards. With `elsewhere`, `work` has each shard done by a `durable` task
    of its own, on another machine.
    """
    adapter = TypeAdapter(record)
    shards = [items[start : start + size] for start in range(0, len(items), size)]
    files = [folder / f"{name}-{size}-{number:05d}.jsonl" for number in range(len(shards))]
    todo = [number for number, file in enumerate(files) if not file.exists()]
    if len(todo) < len(files):
        log.info("%s: %d of %d shards are there already", name, len(files) - len(todo), len(files))
    done = sum(len(shard) for shard in shards) - sum(len(shards[number]) for number in todo)
    progress(done, len(items))

    async def run_shard(number: int) -> None:
        def tell(count: int) -> None:
            under_way[number] = count
            progress(done + sum(under_way.values()), len(items))

        records = await work(shards[number], tell)
        with open_atomic(files[number]) as file:
            file.writelines(adapter.dump_json(record).decode() + "\n" for record in records)

    run = run_shard if elsewhere else shard_task(name, limit_s=limit_s, retry_after_s=retry_after_s)(run_shard)
    waiting = iter(todo)
    under_way: dict[int, int] = {}

    async def run_in_turn() -> None:
        nonlocal done
        for number in waiting:
            await run(number)
            done += len(shards[number])
            under_way.pop(number, None)
            progress(done + sum(under_way.values()), len(items))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(run_in_turn())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return (adapter.validate_json(line) for file in files for line in _lines(file))


def delete_shards(folder: Path, name: str) -> None:
    """Removes the finished shards of this name, so that the next try of the stage does their work again."""
    for file in folder.glob(f"{name}-*.jsonl"):
        file.unlink(missing_ok=True)


def shard_task(
    name: str, *, limit_s: float | None = None, retry_after_s: float = 10
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Makes an async function the Prefect task of a shard, which is tried again as `in_shards` says."""
    return task(
        name=f"{name} shard",
        retries=2,
        retry_delay_seconds=exponential_backoff(retry_after_s),
        retry_jitter_factor=0.5,
        retry_condition_fn=_is_transient,
        timeout_seconds=limit_s,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        yield from lines


async def _is_transient(task: object, run: object, state: State[object]) -> bool:
    """Whether another try may help: not where a setting is wrong or a key is refused."""
    return isinstance(await state.aresult(raise_on_failure=False), JudgeUnavailable | ServerUnavailable | TimeoutError)
