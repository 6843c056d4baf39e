"""Benchmarks in shards: first a model's answers, then the verdicts on them, each kept as soon as it is there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from longreward.benchmarks.types import Answer, Benchmark, Case, ChatClient, Verdict
from longreward.judge import Judge
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.utils.jsonl import write_rows
from longreward.utils.progress import show_progress


@dataclass(frozen=True)
class _OfOneCase:
    """What a shard's file holds in a line."""

    verdicts: tuple[Verdict, ...]


async def answers_in_shards(
    benchmark: Benchmark[Case], speaker: ChatClient, *, role: str, folder: Path, size: int
) -> list[Answer]:
    """The model's answers to all cases, in their order; finished shards lie in `folder`."""

    async def answer(shard: Sequence[Case], tell: OnProgress) -> Iterable[Answer]:
        return await benchmark.answer(speaker, shard, tell=tell)

    name = f"{benchmark.name}-{role}-answers"
    with show_progress(name) as progress:
        cases = benchmark.cases
        return list(
            await run_in_shards(name, cases, answer, record=Answer, folder=folder, size=size, progress=progress)
        )


async def verdicts_in_shards(
    benchmark: Benchmark[Case], judge: Judge, answers: Sequence[Answer], *, role: str, folder: Path, size: int
) -> list[Verdict]:
    """The verdicts on all answers; finished shards lie in `folder`, single answers of the judge in its ledger.

    Two shards at once, so that the judge is still busy while the last calls of one come in.
    """

    async def ask(shard: Sequence[tuple[Case, Answer]], tell: OnProgress) -> Iterable[_OfOneCase]:
        return [_OfOneCase(verdicts) for verdicts in await benchmark.judge(judge, shard, tell=tell)]

    name = f"{benchmark.name}-{role}-verdicts"
    items = list(zip(benchmark.cases, answers, strict=True))
    with show_progress(name) as progress:
        found = await run_in_shards(
            name, items, ask, record=_OfOneCase, folder=folder, size=size, at_once=2, progress=progress
        )
        return list(chain.from_iterable(one.verdicts for one in found))


def write_results(
    out: Path, benchmark: Benchmark[Case], answers: Sequence[Answer], verdicts: Sequence[Verdict], *, role: str
) -> None:
    """<out>/<benchmark>/<role>/answers.jsonl and verdicts.jsonl, and what the benchmark itself writes below `out`."""
    folder = out / benchmark.name / role
    write_rows(folder / "answers.jsonl", map(_row, answers))
    write_rows(folder / "verdicts.jsonl", map(_row, verdicts))
    benchmark.write(out, answers, verdicts, model=role)


def _row(record: Answer | Verdict) -> dict[str, Any]:
    return dict(vars(record))
