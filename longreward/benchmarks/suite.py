"""Open the configured benchmarks and derive the settings of their judges."""

from pathlib import Path
from typing import Any

from longreward.benchmarks.config import BenchmarkConfig
from longreward.benchmarks.downloads import locate_files
from longreward.benchmarks.registry import BenchmarkName, benchmark_class
from longreward.benchmarks.types import Benchmark, Files, JudgeOptions
from longreward.judge.config import JudgeConfig


def open_benchmarks(config: BenchmarkConfig) -> list[Benchmark[Any]]:
    """Load the benchmarks of `config.run`, in order. Raises DataError for missing or malformed files."""
    return [
        benchmark_class(name).load(benchmark_files(name, config), max_new_tokens=config.max_new_tokens)
        for name in config.run
    ]


def open_pairwise_mt_bench(config: BenchmarkConfig, baseline: Path) -> Benchmark[Any]:
    """Load MT-Bench such that the judge also compares each answer with those in FastChat's file `baseline`."""
    files = {**benchmark_files("mt_bench", config), "baseline": baseline}
    return benchmark_class("mt_bench").load(files, max_new_tokens=config.max_new_tokens)


def benchmark_files(name: BenchmarkName, config: BenchmarkConfig) -> Files:
    """Return the published files of one benchmark; empty if the built-in toy data is configured."""
    if name == "factscore":  # has no published files, only questions of one's own
        return {"cases.jsonl": Path(config.facts)} if config.facts else {}
    return locate_files(name, Path(config.files)) if config.files is not None else {}


def judge_config(config: BenchmarkConfig, judge: JudgeConfig, options: JudgeOptions) -> JudgeConfig:
    """Return the judge settings of one benchmark: the section `judge`, `benchmark.judge`, and the protocol's options.

    Raises ConfigError for an unknown setting in `benchmark.judge`.
    """
    base = judge.with_overrides(config.judge, section="benchmark.judge")
    return base.model_copy(
        update={
            "dimensions": {},  # overrides per reward dimension do not apply to benchmarks
            "first_temperature": options.temperature,
            "retry_temperature": options.retry_temperature,
            "max_attempts": options.max_attempts,
            "stop_after_unreadable": None,  # the protocols define the value of an unreadable verdict
        }
    )
