from pathlib import Path

import pytest

from longreward.benchmarks.config import BenchmarkConfig
from longreward.benchmarks.mt_bench.benchmark import BUILTIN
from longreward.benchmarks.registry import MAKERS, open_benchmarks, open_pairwise_mt_bench
from longreward.errors import ConfigError, DataError
from longreward.params import read_params


def test_every_benchmark_has_built_in_cases_in_the_order_of_the_settings():
    config = BenchmarkConfig(run=tuple(reversed(MAKERS)))
    found = open_benchmarks(config)
    assert [one.name for one in found] == ["factscore", "alpaca_eval", "mt_bench", "longbench", "longbench_chat"]
    assert [len(one.cases) for one in found] == [8, 16, 16, 12, 12]
    assert not any(one.official for one in found)


def test_published_files_that_are_not_there_are_named_with_the_command(tmp_path: Path):
    with pytest.raises(DataError, match="longreward benchmarks fetch --only mt_bench"):
        open_benchmarks(BenchmarkConfig(run=("mt_bench",), files=str(tmp_path)))


def test_facts_are_checked_on_documents_of_ones_own(tmp_path: Path):
    own = tmp_path / "heldout.jsonl"
    own.write_text('{"idx": "1", "query": "Who?", "context": "Ann built it.", "answer": "Ann."}\n', encoding="utf-8")
    [one] = open_benchmarks(BenchmarkConfig(run=("factscore",), facts=str(own)))
    assert [case.id for case in one.cases] == ["1"]


def test_mt_bench_can_be_held_against_another_models_answers():
    [alone] = open_benchmarks(BenchmarkConfig(run=("mt_bench",)))
    against = open_pairwise_mt_bench(BenchmarkConfig(run=("mt_bench",)), BUILTIN / "model_answer" / "plain.jsonl")
    assert [case.id for case in against.cases] == [case.id for case in alone.cases]
    assert (alone._rival, against._rival) == ("", "plain")


def test_pairs_need_both_models():
    with pytest.raises(ConfigError, match="pairwise compares the trained model with the SFT model"):
        read_params(None, ["benchmark.pairwise=true", "benchmark.models=[dpo]"])
