"""`longreward benchmarks score` and `longreward import` on the files of other tools."""

import json
from pathlib import Path

import pytest

from longreward.benchmarks.types import TOY_DATA
from longreward.flows.cli.main import main

OFFICIAL = ["--benchmark", "longbench_official", "-S", "benchmark.longbench_official.sets=[multifieldqa_en]"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LONGREWARD_STATE", raising=False)
    return tmp_path


def records():
    path = TOY_DATA / "longbench_official" / "multifieldqa_en.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def baseline():
    return json.loads((TOY_DATA / "alpaca_eval" / "alpaca_eval_gpt4_baseline.json").read_text(encoding="utf-8"))


def test_scores_of_prediction_file_in_table_json_and_files(folder, write_lines, capsys):
    rows = [{"pred": row["answers"][0], "answers": row["answers"], "length": 1} for row in records()]
    rows[1]["pred"] = "none of the words"
    rows[2] = {"pred": None, "answers": []}
    write_lines(folder / "multifieldqa_en.jsonl", rows)
    assert main(["benchmarks", "score", "multifieldqa_en.jsonl", *OFFICIAL, "--model", "my", "--out", "scores"]) == 0
    output = capsys.readouterr()
    assert "1 of " in output.err
    assert "multifieldqa_en.jsonl, line 3: pred is None, expected a text" in output.err
    assert f"{len(rows) - 1} of {len(rows)} cases have a prediction" in output.err
    assert "| metric | cases | my | my unscored |" in output.out
    assert "No judge: answers are compared with references." in output.out
    result = json.loads(Path("scores/longbench_official/pred/my/result.json").read_text())
    expected = 100 * (len(rows) - 2) / (len(rows) - 1)
    assert result == {"multifieldqa_en": pytest.approx(expected, abs=0.01)}
    assert len(Path("scores/longbench_official/my/answers.jsonl").read_text().splitlines()) == len(rows) - 1

    assert main(["benchmarks", "score", "multifieldqa_en.jsonl", *OFFICIAL, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["model"], values["judge"], values["cases"]) == ("multifieldqa_en", None, len(rows) - 1)
    assert values["metrics"]["longbench_official/score"] == pytest.approx(expected)


def test_outputs_are_judged_and_annotations_are_not(folder, capsys):
    outputs = [
        {"instruction": one["instruction"], "output": "A short answer.", "generator": "my"} for one in baseline()
    ]
    Path("model_outputs.json").write_text(json.dumps(outputs))
    assert main(["benchmarks", "score", "model_outputs.json", "--benchmark", "alpaca_eval", "--out", "scores"]) == 0
    judged = capsys.readouterr()
    assert judged.out.splitlines()[2].startswith("Judge: offline")
    assert "| metric | cases | my | my unscored |" in judged.out
    # What it wrote can be scored again, without a judge.
    annotations = "scores/alpaca_eval/my/longreward/annotations.json"
    assert main(["benchmarks", "score", annotations, "--benchmark", "alpaca_eval"]) == 0
    again = capsys.readouterr().out
    assert "Judge: longreward." in again

    def row(table, name):
        return next(line for line in table.splitlines() if line.startswith(f"| {name} |"))

    assert row(again, "win_rate") == row(judged.out, "win_rate")
    assert not any(line.startswith("| length_controlled |") for line in again.splitlines())  # needs df_gamed.csv


def test_answers_of_fastchat(folder, capsys):
    questions = [json.loads(line) for line in (TOY_DATA / "mt_bench" / "question.jsonl").read_text().splitlines()]
    rows = [
        {"question_id": one["question_id"], "model_id": "my", "choices": [{"index": 0, "turns": ["Yes.", "No."]}]}
        for one in questions
    ]
    Path("my.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["benchmarks", "score", "my.jsonl", "--benchmark", "mt_bench"]) == 0
    assert f"| score | {len(rows)} |" in capsys.readouterr().out


def test_several_models_need_a_choice(folder, capsys):
    instruction = json.loads((TOY_DATA / "alpaca_eval" / "alpaca_eval_gpt4_baseline.json").read_text())[0][
        "instruction"
    ]
    outputs = [{"instruction": instruction, "output": name, "generator": name} for name in ("one", "two")]
    Path("outputs.json").write_text(json.dumps(outputs))
    command = ["benchmarks", "score", "outputs.json", "--benchmark", "alpaca_eval"]
    assert main(command) == 1
    assert "outputs.json has predictions of one, two: name one with --model" in capsys.readouterr().err
    assert main([*command, "--model", "two"]) == 0
    assert "| metric | cases | two | two unscored |" in capsys.readouterr().out
    assert main(["benchmarks", "score", "outputs.json", "--benchmark", "alpaca"]) == 1
    assert "unknown --benchmark value 'alpaca'; did you mean alpaca_eval?" in capsys.readouterr().err


def test_imported_responses_can_be_scored(folder, write_lines, capsys):
    write_lines(folder / "sft.jsonl", [{"idx": 3, "query": "Who founded Keld?", "context": "Ann Lee founded Keld."}])
    rows = [{"question": "Who founded Keld?", "answer": "Ann Lee founded Keld."}, {"question": "Why?", "answer": "x"}]
    write_lines(folder / "outputs.jsonl", rows)
    columns = ["--column", "prompt=question", "--column", "response=answer"]
    assert main(["import", "outputs.jsonl", "--data", "sft.jsonl", "--out", "responses.jsonl", *columns]) == 0
    output = capsys.readouterr().out
    assert "responses.jsonl: 1 response to 1 example, read as predictions" in output
    assert "1 prediction without exactly one example of sft.jsonl" in output
    assert main(["score", "--data", "sft.jsonl", "--responses", "responses.jsonl", "--out", "scored.jsonl"]) == 0
    assert "scored.jsonl: 1 of 1 responses have all" in capsys.readouterr().out
