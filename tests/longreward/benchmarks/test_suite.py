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
        "infinitebench",
        "longbench_v2",
        "ruler",
        "factscore",
        "alpaca_eval",
        "mt_bench",
        "longbench_official",
        "longbench",
        "longbench_chat",
    ]
    assert [len(benchmark.cases) for benchmark in benchmarks] == [12, 6, 11, 8, 16, 16, 24, 12, 12]
    assert not any(benchmark.official for benchmark in benchmarks)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "infinitebench",
            {"tasks": ["passkey", "code_run"]},
            r"benchmark.infinitebench.tasks: code_run has no built-in records \(only longbook_choice_eng, .* do\)"
            r".* `longreward benchmarks fetch --only infinitebench` and set benchmark.files to data/benchmarks",
        ),
        ("longbench", {"sets": ["hotpotqa", "qasper"]}, "longbench.sets: qasper has no .* fetch --only longbench`"),
        ("longbench_official", {"sets": ["lcc"], "extended": True}, "longbench_official.sets: lcc_e has no built-in"),
    ],
)
def test_sets_without_builtin_records_name_settings(name, settings, message):
    with pytest.raises(DataError, match=message):
        open_benchmark(name, BenchmarkConfig(**{name: settings}))


@pytest.mark.parametrize("name", get_args(BenchmarkName))
def test_class_and_module_have_same_name(name):
    assert benchmark_class(name).name == name


@pytest.mark.parametrize(
    ("name", "question", "document"),
    [
        (
            "longbench_chat",
            "What did Mina Fabre discover, how many pupils",
            "This is a short account of the Beacon Union",
        ),
        ("longbench", "What did Viktor Lang build?", "This is a short account of the Tempest League"),
        ("factscore", "How many maps did Zeno Abbot draw, and what", "Few people now remember the Tempest Circle"),
        ("ruler", "What is the secret number of mossy-windmill", "One of the secret numbers of mossy-windmill is"),
        ("longbench_v2", "Who taught Felix Draper?\n(A) Stefan Calder\n(B)", "This is a short account of the Lodestar"),
        ("infinitebench", "What is the pass key?", "The Heron Company met for many years"),
        ("mt_bench", "[turn 1]\nWrite one short page of news", None),
        ("alpaca_eval", "The Rosemary Guild met for many years", None),
    ],
)
def test_question_is_separate_from_document(name, question, document):
    benchmark = benchmark_class(name)()
    shown_question, shown_document = benchmark.question_and_document(benchmark.cases[0])
    assert shown_question.startswith(question)
    if document is None:
        assert shown_document is None
    else:
        assert shown_document.startswith(document)
        assert shown_question not in shown_document


def test_official_longbench_shows_template_of_sets_without_input():
    benchmark = benchmark_class("longbench_official")()
    cases = {case.id: case for case in benchmark.cases}
    for case_id, question in [
        ("trec/1", "Question: Which book did Nils Innes write?\nTopic:"),
        ("lcc/1", "Continue the code.\n{context}Next line:\n"),
    ]:
        shown_question, document = benchmark.question_and_document(cases[case_id])
        assert shown_question == question
        assert document in cases[case_id].prompt


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
