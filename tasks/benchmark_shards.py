"""Run benchmarks in shards: first a model's answers, then the verdicts on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from longreward.benchmarks.types import Answer, Benchmark, Case, ChatClient, Verdict
from longreward.judge import Judge
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.utils.jsonl import write_rows


@dataclass(frozen=True)
class _CaseVerdicts:
    """A line of a shard's file: the verdicts on one case."""

    verdicts: tuple[Verdict, ...]


async def answer_in_shards(
    benchmark: Benchmark[Case], client: ChatClient, *, role: str, folder: Path, size: int
) -> list[Answer]:
    """Return the model's answers to all cases, in their order; files of finished shards are in `folder`."""

    async def answer(shard: Sequence[Case], on_progress: OnProgress) -> Iterable[Answer]:
        return await benchmark.answer(client, shard, on_progress=on_progress)

    name = f"{benchmark.name}-{role}-answers"
    return list(await run_in_shards(name, benchmark.cases, answer, record=Answer, folder=folder, size=size))


async def judge_in_shards(
    benchmark: Benchmark[Case], judge: Judge, answers: Sequence[Answer], *, role: str, folder: Path, size: int
) -> list[Verdict]:
    """Return the verdicts on all answers; files of finished shards are in `folder`, replies in the judge's ledger."""

    async def judge_shard(shard: Sequence[tuple[Case, Answer]], on_progress: OnProgress) -> Iterable[_CaseVerdicts]:
        return [_CaseVerdicts(verdicts) for verdicts in await benchmark.judge(judge, shard, on_progress=on_progress)]

    records = await run_in_shards(
        f"{benchmark.name}-{role}-verdicts",
        list(zip(benchmark.cases, answers, strict=True)),
        judge_shard,
        record=_CaseVerdicts,
        folder=folder,
        size=size,
        concurrency=2,  # the judge is busy while the last replies of one shard come in
    )
    return list(chain.from_iterable(record.verdicts for record in records))


def write_results(
    out: Path, benchmark: Benchmark[Case], answers: Sequence[Answer], verdicts: Sequence[Verdict], *, role: str
) -> None:
    """Write <out>/<benchmark>/<role>/answers.jsonl and verdicts.jsonl, and the benchmark's own files."""
    folder = out / benchmark.name / role
    write_rows(folder / "answers.jsonl", (dict(vars(answer)) for answer in answers))
    write_rows(folder / "verdicts.jsonl", (dict(vars(verdict)) for verdict in verdicts))
    benchmark.write_files(out, answers, verdicts, model=role)
