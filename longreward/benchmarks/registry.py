"""The benchmarks that the settings name, each with its files: the published ones, or the built-in miniatures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from longreward.benchmarks.config import BenchmarkConfig, BenchmarkName
from longreward.benchmarks.files import locate
from longreward.benchmarks.types import Benchmark

BASELINE = "model_answer"
Files = Mapping[str, Path]
"""A benchmark's published files by their names, empty where the built-in ones are used."""


def open_benchmarks(config: BenchmarkConfig) -> list[Benchmark[Any]]:
    """All benchmarks of `config`, in its order, their files read.

    Raises DataError where a file is missing or is not what it should be.
    """
    return [MAKERS[name](_files(name, config), config.max_new_tokens) for name in config.run]


def open_pairwise_mt_bench(config: BenchmarkConfig, answers: Path) -> Benchmark[Any]:
    """MT-Bench whose judge also compares each answer with that of another model, in FastChat's file `answers`."""
    files = {**_files("mt_bench", config), BASELINE: answers}
    return MAKERS["mt_bench"](files, config.max_new_tokens)


def _files(name: BenchmarkName, config: BenchmarkConfig) -> Files:
    if name == "factscore":
        return {"cases.jsonl": Path(config.facts)} if config.facts else {}
    return locate(name, Path(config.files)) if config.files is not None else {}


def _longbench_chat(files: Files, most: int | None) -> Benchmark[Any]:
    from longreward.benchmarks.longbench_chat import LongBenchChat

    if not files:
        return LongBenchChat(max_new_tokens=most)
    return LongBenchChat(
        cases=files["test_cases.json"],
        few_shots=files["few_shots.json"],
        judge_prompt=files["prompt_fs.txt"],
        judge_code=files.get("eval.py"),
        max_new_tokens=most,
    )


def _longbench(files: Files, most: int | None) -> Benchmark[Any]:
    from longreward.benchmarks.longbench import LongBench

    if not files:
        return LongBench(max_new_tokens=most)
    templates = files["dataset2prompt.json"]
    return LongBench(
        folder=templates.parent, templates=templates, judge_prompts=files.get("3_eval.py"), max_new_tokens=most
    )


def _mt_bench(files: Files, most: int | None) -> Benchmark[Any]:
    from longreward.benchmarks.mt_bench import MtBench
    from longreward.benchmarks.mt_bench.benchmark import BUILTIN

    return MtBench(
        files.get("question.jsonl", BUILTIN / "question.jsonl"),
        references=files.get("reference_answer/gpt-4.jsonl", BUILTIN / "reference_answer" / "reference.jsonl"),
        judge_prompts=files.get("judge_prompts.jsonl"),
        baseline=files.get(BASELINE),
        max_new_tokens=most,
    )


def _alpaca_eval(files: Files, most: int | None) -> Benchmark[Any]:
    from longreward.benchmarks.alpaca_eval import AlpacaEval

    if not files:
        return AlpacaEval(max_new_tokens=most)
    return AlpacaEval(
        baseline=files["alpaca_eval_gpt4_baseline.json"],
        judge_prompt=files.get("alpaca_eval_clf.txt"),
        gamed=files.get("df_gamed.csv"),
        max_new_tokens=most,
    )


def _factscore(files: Files, most: int | None) -> Benchmark[Any]:
    from longreward.benchmarks.factscore import FactScore

    return FactScore(cases=files["cases.jsonl"], max_new_tokens=most) if files else FactScore(max_new_tokens=most)


MAKERS: Mapping[BenchmarkName, Callable[[Files, int | None], Benchmark[Any]]] = {
    "longbench_chat": _longbench_chat,
    "longbench": _longbench,
    "mt_bench": _mt_bench,
    "alpaca_eval": _alpaca_eval,
    "factscore": _factscore,
}
