"""LongBench v2: prompts, the chosen letter, accuracy by difficulty and length, and files."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_doubles import FAST_INTERVALS, FunctionChatClient, make_answer

from longreward.benchmarks.longbench_v2 import LongBenchV2, parse_choice
from longreward.benchmarks.suite import open_benchmark
from longreward.errors import DataError
from longreward.params import read_params
from longreward.utils.jsonl import BLOCK_SIZE


def make_row(**changed: str) -> dict[str, str]:
    row = {"_id": "a", "domain": "Code", "sub_domain": "Repo", "difficulty": "easy", "length": "short"}
    row |= {"question": " Which $Q$? ", "answer": "B", "context": "\n The $Q$ text. "}
    return row | {f"choice_{letter}": f"{letter.lower()} " for letter in "ABCD"} | changed


def write_files(folder: Path, *rows: dict[str, str]) -> dict[str, Path]:
    paths = {name: folder / file for name, file in LongBenchV2.files.items()}
    paths["data"].write_text(json.dumps(rows))
    paths["prompt"].write_text("$DOC$|$Q$|$C_A$|$C_D$")
    paths["reasoning_prompt"].write_text("Think: $DOC$|$Q$")
    paths["conclusion_prompt"].write_text("Choose: $Q$|$C_B$|$COT$")
    return paths


async def test_one_request_without_chain_of_thought(tmp_path: Path) -> None:
    client = FunctionChatClient(lambda prompt: "The correct answer is (B)")
    benchmark = LongBenchV2(**write_files(tmp_path, make_row()))
    [answer] = await benchmark.answer(client, benchmark.cases)
    assert answer.turns == ("The correct answer is (B)",)
    [request] = client.requests
    assert request.messages[0].content == "The $Q$ text.|Which $Q$?|a|d"
    assert (request.temperature, request.max_new_tokens, request.max_prompt_tokens) == (0.1, 128, 120_000)
    assert benchmark.official


async def test_reasoning_is_in_second_request_of_chain_of_thought(tmp_path: Path) -> None:
    client = FunctionChatClient(lambda prompt: " Because $DOC$. " if prompt.startswith("Think") else "")
    benchmark = LongBenchV2(**write_files(tmp_path, make_row()), chain_of_thought=True)
    [answer] = await benchmark.answer(client, benchmark.cases)
    assert answer.turns == (" Because $DOC$. ", "")
    assert [(request.messages[0].content, request.max_new_tokens) for request in client.requests] == [
        ("Think: The $Q$ text.|Which $Q$?", 1024),
        ("Choose: Which $Q$?|b|Because $DOC$.", 128),
    ]
    assert len({request.id for request in client.requests}) == 2
    benchmark.write_files(tmp_path, [answer], [], model="org/tiny")
    [row] = map(json.loads, (tmp_path / "longbench_v2/results/tiny_cot.jsonl").read_text().splitlines())
    assert (row["response_cot"], row["response"], row["pred"], row["judge"]) == ("Because $DOC$.", "", None, False)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is (B).", "B"),
        ("**The correct answer is** C", "C"),
        ("The correct answer is A, not The correct answer is (D)", "D"),  # parentheses first, as published
        ("The correct answer is (E)", None),
        ("The correct answer is: B", None),
        ("B", None),
    ],
)
def test_parse_choice(text: str, letter: str | None) -> None:
    assert parse_choice(text) == letter


def test_accuracy_by_difficulty_and_length(tmp_path: Path) -> None:
    rows = [
        make_row(),
        make_row(_id="b", difficulty="hard", length="long"),
        make_row(_id="c", difficulty="hard", answer="A"),
        make_row(_id="d", difficulty="hard"),
    ]
    paths = write_files(tmp_path, *rows)
    right = "The correct answer is (B)"
    answers = [make_answer(id, text) for id, text in (("a", right), ("b", "unsure"), ("c", right), ("d", ""))]

    def values(**options: Any) -> dict[str, float]:
        metrics = LongBenchV2(**paths, **options).summarize(answers, [], FAST_INTERVALS).metrics
        return {metric.name: metric.estimate.value for metric in metrics if metric.estimate}

    assert values() == {
        "score": 25.0,
        "difficulty/easy": 100.0,
        "difficulty/hard": 0.0,
        "length/short": pytest.approx(100 / 3),
        "length/long": 0.0,
        "compensated": 37.5,  # 100, 25, 0 and 25
        "without_letter": 50.0,
    }
    assert values(parsing="published")["score"] == pytest.approx(100 / 3)  # without the empty answer


def test_configured_files_and_bad_rows(tmp_path: Path) -> None:
    folder = tmp_path / "longbench_v2"
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps([make_row()]))
    params = read_params(None, [f"benchmark.files={tmp_path}", "benchmark.longbench_v2.chain_of_thought=true"])
    benchmark = open_benchmark("longbench_v2", params.benchmark)
    assert not benchmark.official  # built-in prompts
    assert "The $Q$ text." in benchmark.request(benchmark.cases[0]).messages[0].content
    (folder / "data.json").write_text(json.dumps([make_row(), make_row(difficulty="Easy")]))
    with pytest.raises(DataError, match=r"data\.json, entry 2: difficulty is 'Easy', expected one of easy, hard"):
        open_benchmark("longbench_v2", params.benchmark)


def test_texts_read_from_file_on_access(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    texts = ["é" * BLOCK_SIZE, "short", "鹭" * BLOCK_SIZE]  # blocks end within characters
    content = "\ufeff" + json.dumps([make_row(context=text) for text in texts], indent=1, ensure_ascii=False)
    data.write_text(content, encoding="utf-8")
    cases = LongBenchV2(data=data).cases
    assert [case.context for case in cases] == texts
    data.write_text(content[:-100], encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.json cannot be read as a JSON list .*fetch the file again"):
        LongBenchV2(data=data)
    data.write_text("[]")
    with pytest.raises(DataError, match=r"data\.json was changed while it was read"):
        _ = cases[1].context
    with pytest.raises(DataError, match="one entry per case"):
        LongBenchV2(data=data)
