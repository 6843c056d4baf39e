"""Run benchmarks in shards: first each model's answers, then the verdicts on them."""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from longreward.benchmarks.chat_clients import open_chat_client
from longreward.benchmarks.report import BenchmarkResult
from longreward.benchmarks.suite import judge_config, open_benchmark
from longreward.benchmarks.types import Answer, Benchmark, Case, ChatClient, Summary, Verdict
from longreward.judge import Judge, open_judge, request_summary
from longreward.judge.budget import Budget
from longreward.records import Role
from longreward.tasks.evaluation_records import MODELS
from longreward.tasks.policy_server import comparison_server, open_policy
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.tasks.stage import StageRun
from longreward.tasks.state import ledger_file
from longreward.utils.jsonl import write_rows
from longreward.utils.lazy_map import lazy_zip

Answers = dict[tuple[str, Role], Sequence[Answer]]
"""By benchmark and model, in the order of the cases; they are read from the shards on access."""


async def answer_benchmarks(run: StageRun, benchmarks: Sequence[Benchmark[Any]]) -> Answers:
    """Return each model's answers; a model is loaded, or served, once for all benchmarks."""
    answers: Answers = {}
    server = await comparison_server(run.params.server, run.params.benchmark.models)
    for role in run.params.benchmark.models:
        async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:
            client = open_chat_client(policy, role)
            for benchmark in benchmarks:
                answers[benchmark.name, role] = await _answer_cases(run, benchmark, client, role)
    return answers


async def _answer_cases(run: StageRun, benchmark: Benchmark[Case], client: ChatClient, role: Role) -> Sequence[Answer]:
    async def answer(shard: Sequence[Case], on_progress: OnProgress) -> Iterable[Answer]:
        return await benchmark.answer(client, shard, on_progress=on_progress)

    name, size = f"{benchmark.name}-{role}-answers", run.params.benchmark.shard_size
    return await run_in_shards(name, benchmark.cases, answer, record=Answer, folder=run.state, size=size)


async def judge_benchmark(
    run: StageRun, benchmark: Benchmark[Any], answers: Answers, budget: Budget, *, out: Path
) -> BenchmarkResult:
    """Judge the answers of all models to one benchmark by its protocol.

    Writes <out>/<benchmark>/<model>/answers.jsonl and verdicts.jsonl, and the benchmark's own files.
    """
    config = run.params.benchmark
    judge_settings = judge_config(config, run.params.judge, benchmark.judge_options)
    summaries: dict[str, Summary] = {}
    async with AsyncExitStack() as stack:
        judge = None
        if benchmark.uses_judge:
            judge = await stack.enter_async_context(open_judge(judge_settings, ledger=ledger_file(), budget=budget))
        for role in config.models:
            if role == "dpo" and benchmark.name == "mt_bench" and config.pairwise:
                benchmark = open_benchmark("mt_bench", config, baseline=out / "mt_bench/model_answer/sft.jsonl")
            role_answers = answers[benchmark.name, role]
            verdicts = await _judge_answers(run, benchmark, judge, role_answers, role) if judge else []
            folder = out / benchmark.name / role
            write_rows(folder / "answers.jsonl", (dict(vars(answer)) for answer in role_answers))
            write_rows(folder / "verdicts.jsonl", (dict(vars(verdict)) for verdict in verdicts))
            benchmark.write_files(out, role_answers, verdicts, model=role)
            summaries[role] = benchmark.summarize(role_answers, verdicts, config.interval_options)
        if judge is None:
            return BenchmarkResult(benchmark.name, summaries, benchmark.max_score, official=benchmark.official)
        metrics = judge.metrics()
        run.log_metrics({f"{benchmark.name}/{name}": value for name, value in metrics.items()})
        run.log.info("%s: %s", benchmark.name, request_summary(judge.name, metrics))
        official = benchmark.official and judge_settings.kind != "offline"
        return BenchmarkResult(benchmark.name, summaries, benchmark.max_score, official=official, judge=judge.name)


async def _judge_answers(
    run: StageRun, benchmark: Benchmark[Case], judge: Judge, answers: Sequence[Answer], role: Role
) -> Sequence[Verdict]:
    """Return the verdicts on all answers, which are read from the shards on access."""

    async def judge_shard(shard: Sequence[tuple[Case, Answer]], on_progress: OnProgress) -> Iterable[Verdict]:
        return chain.from_iterable(await benchmark.judge(judge, shard, on_progress=on_progress))

    return await run_in_shards(
        f"{benchmark.name}-{role}-verdicts",
        lazy_zip(benchmark.cases, answers),
        judge_shard,
        record=Verdict,
        folder=run.state,
        size=run.params.benchmark.shard_size,
        concurrency=2,  # the judge is busy while the last replies of one shard come in
        detail=judge.count_replies,
    )
