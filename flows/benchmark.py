"""Run the SFT model and the trained one on public benchmarks."""

import json
from pathlib import Path
from typing import Any

from longreward.benchmarks.chat_clients import open_chat_client
from longreward.benchmarks.plots import BARS, POINTS, length_points, rating_points, score_points
from longreward.benchmarks.report import BenchmarkReport, BenchmarkResult, markdown
from longreward.benchmarks.suite import judge_config, open_benchmarks, open_pairwise_mt_bench
from longreward.benchmarks.types import Answer, Benchmark, Summary
from longreward.judge import open_judge, request_summary
from longreward.judge.budget import Budget
from longreward.tasks.benchmark_shards import answer_in_shards, judge_in_shards, write_results
from longreward.tasks.evaluation_records import MODELS, log_benchmarks
from longreward.tasks.policy_server import comparison_server, open_policy
from longreward.tasks.stage import StageRun, main, stage, write_points
from longreward.tasks.stage_judge import stage_budget
from longreward.tasks.state import ledger_file
from longreward.utils.jsonl import open_atomic

OUT = Path("data/benchmarked")
PLOTS = {"scores": (score_points, BARS), "ratings": (rating_points, BARS), "length": (length_points, POINTS)}

Answers = dict[tuple[str, str], list[Answer]]
"""By benchmark and model."""


@stage
async def benchmark(run: StageRun) -> None:
    """Run the SFT model and the trained one on public benchmarks."""
    config = run.params.benchmark
    benchmarks = open_benchmarks(config)
    answers = await _answer(run, benchmarks)
    with stage_budget(run, config.budget) as budget:
        results = [await _judge(run, benchmark, answers, budget) for benchmark in benchmarks]
    report = BenchmarkReport(results, config.interval_options)
    _write_files(run, report)
    run.log_metrics(report.headline())
    log_benchmarks(run.mlflow, report)


async def _answer(run: StageRun, benchmarks: list[Benchmark[Any]]) -> Answers:
    """Return each model's answers; a model is loaded, or served, once for all benchmarks."""
    config = run.params.benchmark
    answers: Answers = {}
    server = await comparison_server(run.params.server)
    for role in config.models:
        async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:
            client = open_chat_client(policy, role)
            for benchmark in benchmarks:
                answers[benchmark.name, role] = await answer_in_shards(
                    benchmark, client, role=role, folder=run.state, size=config.shard_size
                )
    return answers


async def _judge(run: StageRun, benchmark: Benchmark[Any], answers: Answers, budget: Budget) -> BenchmarkResult:
    """Judge the answers of all models to one benchmark by its protocol."""
    config = run.params.benchmark
    judge_settings = judge_config(config, run.params.judge, benchmark.judge_options)
    summaries: dict[str, Summary] = {}
    async with open_judge(judge_settings, ledger=ledger_file(), budget=budget) as judge:
        for role in config.models:
            if role == "dpo" and benchmark.name == "mt_bench" and config.pairwise:
                benchmark = open_pairwise_mt_bench(config, OUT / "mt_bench/model_answer/sft.jsonl")
            role_answers = answers[benchmark.name, role]
            verdicts = await judge_in_shards(
                benchmark, judge, role_answers, role=role, folder=run.state, size=config.shard_size
            )
            write_results(OUT, benchmark, role_answers, verdicts, role=role)
            summaries[role] = benchmark.summarize(role_answers, verdicts, config.interval_options)
        metrics = judge.metrics()
        run.log_metrics({f"{benchmark.name}/{name}": value for name, value in metrics.items()})
        run.log.info("%s: %s", benchmark.name, request_summary(judge.name, metrics))
        official = benchmark.official and judge_settings.kind != "offline"
        return BenchmarkResult(benchmark.name, summaries, benchmark.max_score, official=official, judge=judge.name)


def _write_files(run: StageRun, report: BenchmarkReport) -> None:
    with open_atomic(OUT / "report.md") as file:
        file.write(markdown(report))
    with open_atomic(OUT / "metrics.json") as file:
        json.dump({role: report.metrics(role) for role in run.params.benchmark.models}, file, indent=1)
    for name, (points, columns) in PLOTS.items():
        write_points(Path(f"plots/benchmark-{name}.csv"), points(report), columns)


if __name__ == "__main__":
    main(benchmark)
