"""Open the configured benchmarks and derive the settings of their judges."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from longreward.benchmarks.config import BenchmarkConfig
from longreward.benchmarks.downloads import FOLDER, locate_files
from longreward.benchmarks.infinitebench.metrics import TaskName
from longreward.benchmarks.longbench.sets import EXTENDED_SETS, JUDGED_SETS, SETS
from longreward.benchmarks.registry import BenchmarkName, benchmark_class
from longreward.benchmarks.types import TOY_DATA, Benchmark, JudgeOptions
from longreward.errors import DataError
from longreward.judge.config import JudgeConfig

CONSTRUCTOR_SECTIONS = ("longbench", "longbench_official", "factscore", "ruler", "longbench_v2", "infinitebench")
"""Benchmarks whose section of the settings has the names of their constructor's arguments."""


def open_benchmarks(config: BenchmarkConfig) -> list[Benchmark[Any]]:
    """Load the benchmarks of `config.run`, in order. Raises DataError for missing or malformed files."""
    return [open_benchmark(name, config) for name in config.run]


def open_benchmark(name: BenchmarkName, config: BenchmarkConfig, **paths: Path) -> Benchmark[Any]:
    """Load one benchmark from its published files, or from the built-in toy data if that is configured.

    `paths` are further arguments of its constructor.
    """
    files: dict[str, Path] = {}
    options: dict[str, Any] = dict(paths)
    if name in CONSTRUCTOR_SECTIONS:
        options |= dict(getattr(config, name))
    match name:
        case "factscore":  # has no published files, only questions of one's own
            files = {"cases.jsonl": Path(config.facts)} if config.facts else {}
        case "longbench" | "longbench_official":
            files = _locate_sets("longbench", name, _longbench_files(name, config), config)
        case "infinitebench":
            tasks = config.infinitebench.tasks or get_args(TaskName)
            files = _locate_sets(name, name, [f"{task}.jsonl" for task in tasks], config)
        case _ if config.files is not None:
            files = locate_files(name, Path(config.files))
    if name == "mt_bench" and config.mt_bench.references is not None:
        files["reference_answer/gpt-4.jsonl"] = Path(config.mt_bench.references)
    benchmark = benchmark_class(name)
    options |= {argument: files[file] for argument, file in benchmark.files.items() if file in files}
    construct: Callable[..., Benchmark[Any]] = benchmark
    return construct(**options, max_new_tokens=config.max_new_tokens, parsing=config.parsing)


def _longbench_files(name: Literal["longbench", "longbench_official"], config: BenchmarkConfig) -> list[str]:
    """Return the file names of the configured sets; both protocols share them."""
    official = config.longbench_official
    if name == "longbench":
        return [f"{dataset}.jsonl" for dataset in config.longbench.sets or JUDGED_SETS]
    if official.extended:
        return [f"{dataset}_e.jsonl" for dataset in official.sets or EXTENDED_SETS]
    return [f"{dataset}.jsonl" for dataset in official.sets or SETS]


def _locate_sets(source: str, name: BenchmarkName, sets: Sequence[str], config: BenchmarkConfig) -> dict[str, Path]:
    """Return the folder `data` with the files of the sets, and the benchmark's other files.

    Without `benchmark.files` none: raises DataError if a configured set has no built-in records.
    """
    setting = "tasks" if name == "infinitebench" else "sets"
    if config.files is None:
        if getattr(getattr(config, name), setting) is not None:
            _require_builtin(source, name, sets, setting)
        return {}
    data = [f"data/{file}" for file in sets]
    others = [file for file in benchmark_class(name).files.values() if file != "data"]
    try:
        files = locate_files(source, Path(config.files), names=[*data, *others])
    except DataError as error:
        raise DataError(f"{error}\nTo run some of them only, list them in benchmark.{name}.{setting}") from None
    return {**files, "data": files[data[0]].parent}


def _require_builtin(source: str, name: BenchmarkName, sets: Sequence[str], setting: str) -> None:
    builtin = {path.name for path in (TOY_DATA / name).glob("*.jsonl")}
    if missing := [file for file in sets if file not in builtin]:
        names, available = (", ".join(Path(file).stem for file in files) for files in (missing, sorted(builtin)))
        raise DataError(
            f"benchmark.{name}.{setting}: {names} has no built-in records (only {available} do): download the "
            f"published files with `longreward benchmarks fetch --only {source}` and set benchmark.files to {FOLDER}"
        )


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
