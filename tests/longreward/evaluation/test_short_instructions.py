"""Short instructions: the built-in ones, correct answers, and the metrics of two models."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longreward.builtin.short_instructions import HELD_OUT, short_items
from longreward.builtin.tokenizer import WORD_PATTERN, vocabulary
from longreward.errors import ConfigError, DataError
from longreward.evaluation.config import BUILTIN_COUNT, EvaluateConfig, ShortMeasureConfig
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.report import summarize
from longreward.evaluation.short_instructions import (
    ShortInstruction,
    ShortInstructionSet,
    load_short_instructions,
    measure_short,
    short_accuracy_by_kind,
    short_answer_rows,
)
from longreward.records import Response


def make_set(*answers: str, query: str = "Which is more: 13, 48?") -> ShortInstructionSet:
    from longreward.records import Example

    example = Example(id="short/0", document_id="short/0", context="", query=query)
    return ShortInstructionSet({"short/0": ShortInstruction(example, answers, "more")})


def make_response(text: str, number: int = 0) -> Response:
    return Response(id=f"short/{number}-0", example_id=f"short/{number}", query="q", text=text)


def test_builtin_instructions_are_deterministic_and_cycle_through_kinds() -> None:
    items = short_items(22)
    assert items[5].query == "Which is first in the list: philosophy, statue, astronomy, bronze?"
    assert (items[5].answer, items[5].wrong) == ("philosophy.", "bronze.")
    assert (items[13].query, items[13].answer) == ("Which is more: 158, 483?", "483.")
    kinds = ["fact", "whose", "first", "last", "without", "and", "more", "twice", "count"]
    assert [item.kind for item in items[1::2]] == [*kinds, "fact", "whose"]
    assert {item.kind for item in items[::2]} == {"notes"}


def test_wrong_answer_about_notes_is_fact_of_other_person() -> None:
    for item in short_items(40):
        if item.kind == "notes":
            notes = item.query.partition("\n\n")[0]
            assert item.answer in notes
            assert item.wrong not in notes
            assert set(item.wrong.split()) <= set(notes.split())


def test_word_counts_are_correct() -> None:
    for item in short_items(90):
        if item.kind == "count":
            assert item.answer == f"{item.query.count(',') + 1}."


def test_heldout_instructions_are_disjoint_from_training() -> None:
    held_out, trained = short_items(HELD_OUT, "heldout"), short_items(1000)
    assert not {item.query for item in held_out} & {item.query for item in trained}
    assert all(item.answer != item.wrong and item.wrong not in item.accepted for item in (*held_out, *trained))
    assert HELD_OUT == BUILTIN_COUNT


def test_builtin_instructions_use_vocabulary_of_tiny_base() -> None:
    vocabulary_words = set(vocabulary())
    for item in (*short_items(200), *short_items(200, "heldout")):
        for text in (item.query, item.answer, item.wrong):
            assert set(re.findall(WORD_PATTERN, text)) <= vocabulary_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48.", True),
        (" 48", True),
        ("48!", True),
        ("It is 48.", True),
        ("it  is 48", True),
        ("13.", False),
        ("48, 13.", False),
        ("", False),
    ],
)
def test_only_exact_answer_is_correct(text: str, expected: bool) -> None:
    assert make_set("48.", "It is 48.").is_correct(make_response(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The larger number is 48.", True),
        ("48 is more than 13.", False),  # it also names the wrong answer
        ("148 is more.", False),
        ("48.5 or so", True),
        ("", False),
    ],
)
def test_contained_answer_is_correct(text: str, expected: bool) -> None:
    instruction = replace(make_set("48.").instructions["short/0"], wrong="13.")
    assert ShortInstructionSet({"short/0": instruction}, match="contains").is_correct(make_response(text)) == expected


def test_wrong_answer_may_be_part_of_contained_answer() -> None:
    instruction = replace(make_set("quiet compass, quiet compass.").instructions["short/0"], wrong="quiet compass.")
    instructions = ShortInstructionSet({"short/0": instruction}, match="contains")
    assert instructions.is_correct(make_response("Written twice: quiet compass, quiet compass."))
    assert not instructions.is_correct(make_response("Written twice: quiet compass."))


def test_no_instructions_by_default() -> None:
    assert load_short_instructions(EvaluateConfig().short) is None


def test_builtin_set_has_no_documents_and_accepts_bare_value() -> None:
    instructions = load_short_instructions(ShortMeasureConfig(source="builtin", count=9))
    assert instructions is not None
    assert [example.context for example in instructions.examples] == [""] * 9
    item = short_items(1, "heldout")[0]
    assert instructions.instructions["short/0"].answers == (item.answer, *item.accepted)
    assert instructions.is_correct(make_response(item.accepted[0]))
    assert not instructions.is_correct(make_response(item.wrong))
    with pytest.raises(ConfigError, match="there are 500 built-in instructions"):
        ShortMeasureConfig.parse({"source": "builtin", "count": 501}, source="params.yaml")


def write_instructions(root: Path, *rows: Any) -> str:
    (root / "data/raw").mkdir(parents=True)
    (root / "data/raw/short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "data/raw/short.jsonl"


def test_user_instructions_have_one_or_several_answers(tmp_path: Path) -> None:
    name = write_instructions(
        tmp_path, {"query": "a?", "answer": "b"}, {"query": "c?", "answers": ["d", "e"]}, {"query": "f?", "answer": "g"}
    )
    instructions = load_short_instructions(ShortMeasureConfig(source=name, count=2), tmp_path)
    assert instructions is not None
    assert [example.query for example in instructions.examples] == ["a?", "c?"]
    assert [instruction.answers for instruction in instructions.instructions.values()] == [("b",), ("d", "e")]


@pytest.mark.parametrize(
    "row",
    [
        {"query": "a?"},
        {"query": "a?", "answer": 3},
        {"answer": "b"},
        {"query": "", "answer": "b"},
        {"query": "a?", "answers": "b"},
    ],
)
def test_invalid_row_reported_with_line(tmp_path: Path, row: dict[str, Any]) -> None:
    name = write_instructions(tmp_path, {"query": "a?", "answer": "b"}, row)
    with pytest.raises(DataError, match=r"short\.jsonl, line 2: expected"):
        load_short_instructions(ShortMeasureConfig(source=name), tmp_path)


def test_file_outside_data_raw_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="move it to data/raw"):
        load_short_instructions(ShortMeasureConfig(source="elsewhere.jsonl"), tmp_path)


def make_measures(role: Any, *scores: float) -> list[AnswerMeasures]:
    return [
        AnswerMeasures(role, "greedy", f"short/{n}", make_response("", n), {"short": score})
        for n, score in enumerate(scores)
    ]


@pytest.mark.parametrize("temperatures", [(1.0, 0.0), (1.0,)])
def test_short_accuracy_is_measure_and_not_counted_as_unscored(temperatures: Any) -> None:
    config = EvaluateConfig(temperatures=temperatures, short=ShortMeasureConfig(source="builtin"))
    evaluation = summarize(config, [*make_measures("sft", 0, 1, 0, 0, 0, 0, 0, 0), *make_measures("dpo", *[1.0] * 8)])
    [row] = evaluation.rows
    assert (row.comparison, row.measure, row.first.value, row.second.value, row.improvement) == (
        "greedy",
        "short",
        0.125,
        1,
        1,
    )
    assert evaluation.headline()["difference/short/greedy"] == 0.875
    assert evaluation.metrics("dpo") == {"short/greedy": 1.0, "unscored/greedy": 0.0, "truncated/greedy": 0.0}
    assert evaluation.finding == "not compared"


def test_accuracy_by_kind() -> None:
    instructions = load_short_instructions(ShortMeasureConfig(source="builtin", count=4))
    assert instructions is not None
    by_kind = short_accuracy_by_kind(instructions, make_measures("dpo", 1, 0, 0, 1))
    assert by_kind == {"short/notes/dpo": 0.5, "short/fact/dpo": 0, "short/whose/dpo": 1}


def test_answers_recorded_with_expected_values() -> None:
    measures = list(measure_short(make_set("48."), "dpo", [make_response("48")]))
    assert measures[0].row()["measures"] == {"short": 1.0}
    [row] = short_answer_rows(make_set("48."), measures)
    assert row == {
        "model": "dpo",
        "idx": "short/0-0",
        "kind": "more",
        "query": "q",
        "answer": "48",
        "expected": "48.",
        "right": True,
    }
