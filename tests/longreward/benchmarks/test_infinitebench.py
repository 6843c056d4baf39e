"""∞Bench: metrics with literal answers, prompts, prediction files, and files that are missing or malformed."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_doubles import FAST_INTERVALS, make_answer

from longreward.benchmarks.infinitebench.benchmark import InfiniteBench
from longreward.benchmarks.infinitebench.metrics import TaskName, task_score
from longreward.benchmarks.predictions import match_predictions
from longreward.benchmarks.suite import open_benchmark
from longreward.data.predictions import read_predictions
from longreward.errors import DataError
from longreward.params import read_params

ROW = {"id": 0, "context": "A {text}", "input": "What?", "answer": ["5"], "options": []}
PROMPTS = """gpt4_templates = {"passkey": "Find: {context}|{input}", "math_find": "{prefix}|{context}|{input}",
    "code_run": "{func} {func_call}|{context}", "longbook_choice_eng": "{context}|{question}|{OPTION_A}"}
yarn_mistral_templates = {"passkey": "{context}|The key is"}
"""
CODE = """def create_prompt(eg):
    prefix = f"What is {target_number} here?"
"""


def write_task(folder: Path, task: str, *rows: dict[str, Any]) -> None:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / f"{task}.jsonl").write_text("".join(f"{json.dumps(ROW | row)}\n" for row in rows))


def write_code(folder: Path) -> dict[str, Any]:
    paths: dict[str, Any] = {name: folder / file for name, file in InfiniteBench.files.items()}
    paths["prompts"].write_text(PROMPTS)
    paths["code"].write_text(CODE)
    return paths


@pytest.mark.parametrize(
    ("task", "answer", "references", "score"),
    [
        ("passkey", "The pass key is 71432. Remember 5.", ["71432"], 1.0),
        ("number_string", "Two, not 5: 71432", ["71432"], 0.0),  # the first number counts
        ("kv_retrieval", 'The value is: {"ab-12"}', ["ab-12"], 1.0),
        ("kv_retrieval", "xab-12", ["ab-12"], 0.0),
        ("longdialogue_qa_eng", "Ace, of course", ["ACE", "ACE ROTHSTEIN"], 1.0),
        ("longdialogue_qa_eng", "Ace Rothstein", ["ACE ROTHSTEIN"], 0.0),  # the name is not a single word
        ("math_find", "It is -88.0", ["88"], 1.0),
        ("math_find", "none", ["88"], 0.0),
        ("code_run", "First -3, then `-7`.", ["-7"], 1.0),
        ("code_run", "", ["-7"], 0.0),
        ("code_debug", "C. cmd_gen", ["cmd_gen", "C"], 1.0),
        ("code_debug", "**The correct answer is:** `cmd_gen`", ["cmd_gen", "C"], 1.0),
        ("code_debug", "I think that C is wrong", ["cmd_gen", "C"], 0.0),
        ("longbook_choice_eng", "A walk", ["Walking Georgie", "A"], 1.0),  # the first letter counts
        ("longbook_choice_eng", "Walking Georgie", ["Walking Georgie", "A"], 1.0),
        ("longbook_choice_eng", "The answer is: B. Walking Georgie", ["Walking Georgie", "A"], 0.0),
        ("longbook_choice_eng", "Maybe C or A", ["Walking Georgie", "A"], 0.0),
        ("longbook_choice_eng", "", ["Walking Georgie", "A"], 0.0),
        ("longbook_qa_eng", "The red stone mill.", ["a house", "a stone mill"], 0.8),
        ("longbook_qa_chn", "红色，的石磨", ["石磨"], 4 / 7),  # 2 of 5 characters
    ],
)
def test_task_score(task: TaskName, answer: str, references: list[str], score: float) -> None:
    assert task_score(task, answer, references) == pytest.approx(score, abs=1e-12)


def test_prompts_of_published_code(tmp_path: Path) -> None:
    write_task(tmp_path, "passkey", {})
    write_task(tmp_path, "math_find", {"input": "The Second largest number of them is", "answer": [3.5]})
    write_task(tmp_path, "code_run", {"input": "What does func_7(-12) return?", "answer": 4})
    write_task(tmp_path, "longbook_choice_eng", {"options": ["{context}", "5", "c", "d"]})
    benchmark = InfiniteBench(**write_code(tmp_path))
    assert [(case.id, case.prompt, case.ground_truth) for case in benchmark.cases] == [
        ("passkey/1", "Find: A {text}|What?", ["5"]),
        ("longbook_choice_eng/1", "A {text}|What?|{context}", ["5", "B"]),
        ("math_find/1", "What is the second largest number here?|A {text}|The Second largest number of them is", [3.5]),
        ("code_run/1", "func_7 func_7(-12)|A {text}", [4]),
    ]
    assert benchmark.question_and_document(benchmark.cases[1]) == ("|What?|{context}", "A {text}")
    assert benchmark.official
    assert benchmark.request(benchmark.cases[0]).max_new_tokens == 1024


def test_base_models_continue_prompts_of_their_own(tmp_path: Path) -> None:
    write_task(tmp_path, "passkey", {})
    benchmark = InfiniteBench(**write_code(tmp_path), chat_template="never")
    request = benchmark.request(benchmark.cases[0])
    assert (request.messages[0].content, request.chat, request.max_new_tokens) == ("A {text}|The key is", False, 6)


def test_mean_over_tasks_and_prediction_files(tmp_path: Path) -> None:
    write_task(tmp_path, "passkey", {}, {"answer": ["6"]}, {"answer": "7"})
    write_task(tmp_path, "kv_retrieval", {"answer": ["v1"]})
    benchmark = InfiniteBench(folder=tmp_path / "data")
    texts = {"passkey/1": "5", "passkey/2": "5", "passkey/3": "7", "kv_retrieval/1": "v1"}
    answers = [make_answer(case_id, text) for case_id, text in texts.items()]
    summary = benchmark.summarize(answers, [], FAST_INTERVALS)
    values = {metric.name: metric.estimate.value for metric in summary.metrics if metric.estimate}
    assert values == {
        "score": pytest.approx((200 / 3 + 100) / 2),
        "task/passkey": pytest.approx(200 / 3),
        "task/kv_retrieval": 100.0,
    }
    benchmark.write_files(tmp_path, answers, [], model="org/tiny")
    rows = (tmp_path / "infinitebench/tiny/preds_passkey.jsonl").read_text().splitlines()
    assert json.loads(rows[1]) == {"id": 1, "prediction": "5", "ground_truth": ["6"]}
    [row] = map(json.loads, (tmp_path / "infinitebench/tiny/preds_kv_retrieval.jsonl").read_text().splitlines())
    assert row["ground_truth"] == "v1"


def test_published_predictions_answer_cases_by_task_and_id(tmp_path: Path) -> None:
    write_task(tmp_path, "passkey", {}, {"answer": ["6"]}, {"answer": ["7"]})
    benchmark = InfiniteBench(folder=tmp_path / "data")
    path = tmp_path / "preds_passkey.jsonl"
    rows = [{"id": number, "prediction": text, "ground_truth": "5"} for number, text in ((2, "It is 7."), (0, "6"))]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = read_predictions(path.name, root=tmp_path)
    items = match_predictions(benchmark, file.predictions).items
    assert file.format == "infinitebench"
    assert [(case.id, answer.turns) for case, answer in items] == [("passkey/1", ("6",)), ("passkey/3", ("It is 7.",))]


def test_only_files_of_configured_tasks_needed(tmp_path: Path) -> None:
    folder = tmp_path / "infinitebench"
    folder.mkdir()
    write_task(folder, "passkey", {})
    overrides = [f"benchmark.files={tmp_path}", "benchmark.infinitebench.tasks=[passkey]"]
    benchmark = open_benchmark("infinitebench", read_params(None, overrides).benchmark)
    assert [case.id for case in benchmark.cases] == ["passkey/1"]
    with pytest.raises(DataError, match=r"(?s)data/kv_retrieval\.jsonl.*list them in benchmark\.infinitebench\.tasks"):
        open_benchmark("infinitebench", read_params(None, overrides[:1]).benchmark)


@pytest.mark.parametrize(
    ("task", "row", "reason"),
    [
        ("passkey", {"answer": []}, r"answer is \[\], expected a text"),
        ("math_find", {"answer": ["5"]}, "expected a number"),
        ("math_find", {"answer": [5]}, r"input is 'What\?', expected a match"),
        ("code_debug", {"options": ["a", "b", "c", "d"]}, "expected four texts with '5'"),
        ("passkey", {"context": None}, "context is None, expected a text"),
    ],
)
def test_bad_rows(tmp_path: Path, task: TaskName, row: dict[str, Any], reason: str) -> None:
    write_task(tmp_path, task, row)
    with pytest.raises(DataError, match=rf"{task}\.jsonl, line 1: .*{reason}"):
        InfiniteBench(folder=tmp_path / "data")


def test_template_with_unexpected_slot(tmp_path: Path) -> None:
    write_task(tmp_path, "passkey", {})
    paths = write_code(tmp_path)
    paths["prompts"].write_text('gpt4_templates = {"passkey": "{document}"}')
    with pytest.raises(DataError, match="template of passkey cannot be filled: KeyError"):
        InfiniteBench(**paths)
