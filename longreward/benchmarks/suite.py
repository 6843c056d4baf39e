"""Open the configured benchmarks and derive the settings of their judges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longreward.benchmarks.config import BenchmarkConfig
from longreward.benchmarks.downloads import locate_files
from longreward.benchmarks.registry import BenchmarkName, benchmark_class
from longreward.benchmarks.types import Benchmark, JudgeOptions
from longreward.judge.config import JudgeConfig


def open_benchmarks(config: BenchmarkConfig) -> list[Benchmark[Any]]:
    """Load the benchmarks of `config.run`, in order. Raises DataError for missing or malformed files."""
    return [open_benchmark(name, config) for name in config.run]


def open_benchmark(name: BenchmarkName, config: BenchmarkConfig, **paths: Path) -> Benchmark[Any]:
    """Load one benchmark from its published files, or from the built-in toy data if that is configured.

    `paths` are further arguments of its constructor.
    """
    files: dict[str, Path] = {}
    if name == "factscore":  # has no published files, only questions of one's own
        files = {"cases.jsonl": Path(config.facts)} if config.facts else {}
    elif config.files is not None:
        files = locate_files(name, Path(config.files))
        if name == "longbench":
            files["data"] = files["data/qasper.jsonl"].parent
    benchmark = benchmark_class(name)
    arguments = {argument: files[file] for argument, file in benchmark.files.items() if file in files} | paths
    construct: Callable[..., Benchmark[Any]] = benchmark
    return construct(**arguments, max_new_tokens=config.max_new_tokens, parsing=config.parsing)


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
