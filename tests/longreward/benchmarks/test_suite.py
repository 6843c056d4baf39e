import json
from pathlib import Path
from typing import get_args

import pytest

from longreward.benchmarks.config import BenchmarkConfig, RulerConfig
from longreward.benchmarks.mt_bench.benchmark import TOY
from longreward.benchmarks.registry import BenchmarkName, benchmark_class
from longreward.benchmarks.suite import open_benchmark, open_benchmarks
from longreward.errors import ConfigError, DataError
from longreward.params import read_params


def test_benchmarks_in_configured_order_with_builtin_data_by_default():
    config = BenchmarkConfig(run=tuple(reversed(get_args(BenchmarkName))), ruler=RulerConfig(lengths=(512,), cases=1))
    benchmarks = open_benchmarks(config)
    names = [benchmark.name for benchmark in benchmarks]
    assert names == [
        "longbench_v2",
        "ruler",
        "factscore",
        "alpaca_eval",
        "mt_bench",
        "longbench_official",
        "longbench",
        "longbench_chat",
    ]
    assert [len(benchmark.cases) for benchmark in benchmarks] == [6, 11, 8, 16, 16, 24, 12, 12]
    assert not any(benchmark.official for benchmark in benchmarks)


@pytest.mark.parametrize("name", get_args(BenchmarkName))
def test_class_and_module_have_same_name(name):
    assert benchmark_class(name).name == name


def test_missing_published_files_listed_with_fetch_command(tmp_path: Path):
    with pytest.raises(DataError, match="longreward benchmarks fetch --only mt_bench"):
        open_benchmarks(BenchmarkConfig(run=("mt_bench",), files=str(tmp_path)))


def test_factscore_reads_configured_questions(tmp_path: Path):
    questions = tmp_path / "heldout.jsonl"
    questions.write_text('{"idx": "1", "query": "Who?", "context": "Ann built it.", "answer": "Ann."}\n')
    [benchmark] = open_benchmarks(BenchmarkConfig(run=("factscore",), facts=str(questions)))
    assert [case.id for case in benchmark.cases] == ["1"]


def test_pairwise_mt_bench_has_baseline_as_opponent():
    config = BenchmarkConfig(run=("mt_bench",))
    [single] = open_benchmarks(config)
    pairwise = open_benchmark("mt_bench", config, baseline=TOY / "model_answer" / "plain.jsonl")
    assert [case.id for case in pairwise.cases] == [case.id for case in single.cases]
    assert (single.opponent, pairwise.opponent) == (None, "plain")


def test_pairwise_needs_both_models():
    with pytest.raises(ConfigError, match="pairwise"):
        read_params(None, ["benchmark.pairwise=true", "benchmark.models=[dpo]"])


def test_configured_reference_answers_replace_default_ones(tmp_path: Path):
    published = TOY / "reference_answer" / "reference.jsonl"
    corrected = tmp_path / "corrected.jsonl"
    rows = [json.loads(line) for line in published.read_text().splitlines()]
    rows[0]["choices"][0]["turns"] = ["a corrected answer"] * 2
    corrected.write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = read_params(None, [f"benchmark.mt_bench.references={corrected}"])
    cases = {str(case.id): case for case in open_benchmark("mt_bench", params.benchmark).cases}
    references = cases[str(rows[0]["question_id"])].references
    assert references
    assert set(references) == {"a corrected answer"}
