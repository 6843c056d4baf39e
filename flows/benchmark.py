"""The SFT model and the trained one on public benchmarks."""

import json
from pathlib import Path

from longreward.benchmarks.chat_clients import open_chat_client
from longreward.benchmarks.config import judge_config
from longreward.benchmarks.plots import BARS, POINTS, length_points, rating_points, score_points
from longreward.benchmarks.registry import open_benchmarks, open_pairwise_mt_bench
from longreward.benchmarks.report import BenchmarkReport, BenchmarkResult, markdown
from longreward.benchmarks.types import Answer, Benchmark, Case, Summary
from longreward.judge import open_judge, request_summary
from longreward.judge.budget import Budget
from longreward.tasks.benchmark_shards import answers_in_shards, verdicts_in_shards, write_results
from longreward.tasks.evaluation_records import MODELS, record_benchmarks
from longreward.tasks.policy_server import comparison_server, open_policy
from longreward.tasks.stage import StageRun, main, stage, write_points
from longreward.tasks.stage_judge import stage_budget
from longreward.tasks.state import ledger_file
from longreward.utils.jsonl import open_atomic

OUT = Path("data/benchmarked")
PLOTS = {"scores": (score_points, BARS), "ratings": (rating_points, BARS), "length": (length_points, POINTS)}


@stage
async def benchmark(run: StageRun) -> None:
    """The SFT model and the trained one on public benchmarks."""
    config = run.params.benchmark
    benchmarks = open_benchmarks(config)
    answers = await _answers(run, benchmarks)
    with stage_budget(run, config.budget) as budget:
        found = [await _judged(run, one, answers, budget) for one in benchmarks]
    report = BenchmarkReport(found, config.intervals)
    _write(run, report)
    run.report(report.headline())
    record_benchmarks(run.tracked, report)


Answers = dict[tuple[str, str], list[Answer]]
"""By benchmark and model."""


async def _answers(run: StageRun, benchmarks: list[Benchmark[Case]]) -> Answers:
    """Each model's answers to each benchmark; a model is loaded, or served, once for all of them."""
    config = run.params.benchmark
    found: Answers = {}
    server = await comparison_server(run.params.server)
    for role in config.models:
        async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:
            for one in benchmarks:
                found[one.name, role] = await answers_in_shards(
                    one, open_chat_client(policy, role), role=role, folder=run.state, size=config.shard_size
                )
    return found


async def _judged(run: StageRun, one: Benchmark[Case], answers: Answers, budget: Budget) -> BenchmarkResult:
    """All models on one benchmark, asked as its protocol says."""
    config = run.params.benchmark
    summaries: dict[str, Summary] = {}
    own = judge_config(config, run.params.judge, one.judging)
    async with open_judge(own, ledger=ledger_file(), budget=budget) as judge:
        for role in config.models:
            if role == "dpo" and one.name == "mt_bench" and config.pairwise:
                one = open_pairwise_mt_bench(config, OUT / "mt_bench/model_answer/sft.jsonl")
            said = answers[one.name, role]
            verdicts = await verdicts_in_shards(one, judge, said, role=role, folder=run.state, size=config.shard_size)
            write_results(OUT, one, said, verdicts, role=role)
            summaries[role] = one.summarise(said, verdicts, config.intervals)
        figures = judge.metrics()
        run.report({f"{one.name}/{figure}": value for figure, value in figures.items()})
        run.log.info("%s: %s", one.name, request_summary(judge.name, figures))
        official = one.official and own.kind != "offline"
        return BenchmarkResult(one.name, summaries, top=one.top, official=official, judge=judge.name)


def _write(run: StageRun, report: BenchmarkReport) -> None:
    with open_atomic(OUT / "report.md") as file:
        file.write(markdown(report))
    with open_atomic(OUT / "figures.json") as file:
        json.dump({role: report.figures(role) for role in run.params.benchmark.models}, file, indent=1)
    for name, (points, columns) in PLOTS.items():
        write_points(Path(f"plots/benchmark-{name}.csv"), points(report), columns)


if __name__ == "__main__":
    main(benchmark)
