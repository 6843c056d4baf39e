"""Predictions of other tools in their published formats, and their import as responses."""

import json

import pytest

from longreward.data.formats import read_responses
from longreward.data.import_predictions import ImportReport, import_predictions
from longreward.data.predictions import FORMATS, Prediction, PredictionColumns, read_predictions
from longreward.errors import ConfigError, DataError

LM_EVAL = "samples_longbench_qasper_2025-01-02T10-11-12.123456"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lm_eval_row(number, *, filter_name="none", **fields):
    row = {
        "doc_id": number,
        "doc": {"question": f"Question {number}?", "context": f"Document {number}.", "answers": ["yes"]},
        "target": "['yes']",
        "arguments": {"gen_args_0": {"arg_0": "the prompt", "arg_1": {"until": []}}},
        "resps": [[f"reply {number}"]],
        "filtered_resps": ["extracted"],
        "filter": filter_name,
        "doc_hash": "a",
    }
    return row | fields


def test_lm_eval_logs_give_raw_replies_with_their_position(folder, write_lines):
    write_lines(folder / f"{LM_EVAL}.jsonl", [lm_eval_row(0), lm_eval_row(3, doc={"_id": "x", "input": "Why?"})])
    file = read_predictions(f"{LM_EVAL}.jsonl")
    assert file.format == "lm_eval"
    assert file.predictions == [
        Prediction(
            ("reply 0",), prompt="Question 0?", position=("longbench_qasper", 0), context="Document 0."
        ),
        Prediction(("reply 3",), id="x", prompt="Why?", position=("longbench_qasper", 3)),
    ]  # fmt: skip


def test_alpaca_eval_outputs_and_annotations(folder):
    rows = [{"dataset": "d", "instruction": "Where?", "output": "North.", "generator": "sft"}]
    (folder / "model_outputs.json").write_text(json.dumps(rows))
    expected = [Prediction(("North.",), prompt="Where?", model="sft")]
    assert read_predictions("model_outputs.json").predictions == expected
    rows = [{"instruction": "Where?", "output_1": "South.", "output_2": "North.", "generator_2": "sft"}]
    (folder / "annotations.json").write_text(json.dumps(rows))
    assert read_predictions("annotations.json").predictions == expected


def test_longbench_files_are_read_by_position(folder, write_lines):
    write_lines(folder / "qasper.jsonl", [{"pred": text, "answers": ["a"], "length": 9} for text in ("x", "y")])
    file = read_predictions("qasper.jsonl")
    assert [(prediction.position, prediction.responses) for prediction in file.predictions] == [
        (("qasper", 0), ("x",)),
        (("qasper", 1), ("y",)),
    ]


def test_generic_files_with_samples_and_other_columns(folder, write_lines):
    write_lines(folder / "a.jsonl", [{"id": 7, "response": "x"}, {"prompt": "Why?", "responses": ["y", "z"]}])
    assert read_predictions("a.jsonl").predictions == [
        Prediction(("x",), id="7"),
        Prediction(("y", "z"), prompt="Why?"),
    ]
    (folder / "b.csv").write_text("key,output\n7,x\n")
    columns = PredictionColumns(id="key", response="output")
    assert read_predictions("b.csv", columns=columns).predictions == [Prediction(("x",), id="7")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": True, "response": "x"}, "id is True, expected a text or whole number"),
        ({"id": "1", "response": None}, "response is None, expected a text"),
        ({"response": "x"}, "id or prompt is missing"),
        ({"id": "1"}, "response is missing; the row has 'id'"),
        ({"id": "1", "response": []}, "response is [], expected a text"),
        (lm_eval_row(0, resps=[["-3.1", "False"], ["-2.0", "True"]]), "compares the probabilities of several answers"),
        (lm_eval_row("0"), "doc_id is '0', expected a whole number"),
        ({"instruction": "Where?", "output": None}, "output is None, expected a text"),
        ({"instruction": 3, "output": "x"}, "instruction is 3, expected a text"),
        ({"pred": None, "answers": []}, "pred is None, expected a text"),
    ],
)
def test_bad_row_is_left_out_with_line_and_reason(folder, write_lines, row, reason):
    name = next(
        (name for name, prediction_format in FORMATS.items() if prediction_format.recognizes(row)),
        "predictions",
    )
    good = {"predictions": {"id": "9", "response": "x"}, "lm_eval": lm_eval_row(9)}.get(name)
    good = good or {"instruction": "W?", "output": "x", "pred": "x", "answers": []}
    write_lines(folder / "a.jsonl", [good, row])
    file = read_predictions("a.jsonl", format_name=name)
    assert (len(file.predictions), str(file.rejected[0].location)) == (1, "a.jsonl, line 2")
    assert reason in file.rejected[0].reason


def test_unusable_files_are_errors(folder, write_lines):
    write_lines(folder / "a.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: the format is not known from the columns text"):
        read_predictions("a.jsonl")
    with pytest.raises(ConfigError, match="the format 'lmeval' does not exist; the formats are lm_eval, "):
        read_predictions("a.jsonl", format_name="lmeval")
    with pytest.raises(DataError, match=r"a\.jsonl: no predictions\. 1 of 1 rows are left out"):
        read_predictions("a.jsonl", format_name="predictions")


def write_examples(folder, write_lines):
    rows = [{"idx": n, "query": f"Question {n}?", "context": f"Document {n}.", "answer": None} for n in range(3)]
    rows.append({"idx": "copy", "query": "Question 2?", "context": "Another document."})
    return write_lines(folder / "sft.jsonl", rows)


def test_import_by_id_by_question_and_by_document(folder, write_lines):
    data = write_examples(folder, write_lines)
    write_lines(
        folder / "a.jsonl",
        [
            {"id": "0", "response": "by id"},
            {"prompt": "Question  1?", "responses": ["first", "second"]},
            {"prompt": "Question 2?", "response": "of which document?"},
            {"id": "0", "response": "a second sample"},
            {"id": "0", "response": "by id"},
            {"id": "5", "response": "of no example"},
        ],
    )
    report = import_predictions(read_predictions("a.jsonl"), data=data, out=folder / "responses.jsonl")
    assert report == ImportReport(responses=4, examples=2, unmatched=2, repeated=1)
    responses = list(read_responses(folder / "responses.jsonl"))
    assert [(response.id, response.query, response.text) for response in responses] == [
        ("0-0", "Question 0?", "by id"),
        ("1-0", "Question 1?", "first"),
        ("1-1", "Question 1?", "second"),
        ("0-1", "Question 0?", "a second sample"),
    ]


def test_import_of_lm_eval_log_uses_its_documents_and_one_row_per_filter(folder, write_lines):
    data = write_examples(folder, write_lines)
    rows = [lm_eval_row(number, filter_name=name) for name in ("none", "strict") for number in (1, 2)]
    write_lines(folder / f"{LM_EVAL}.jsonl", rows)
    report = import_predictions(read_predictions(f"{LM_EVAL}.jsonl"), data=data, out=folder / "responses.jsonl")
    assert report == ImportReport(responses=2, examples=2, unmatched=0, repeated=2)
    assert [response.id for response in read_responses(folder / "responses.jsonl")] == ["1-0", "2-0"]


def test_import_without_any_match_is_error(folder, write_lines):
    data = write_examples(folder, write_lines)
    write_lines(folder / "a.jsonl", [{"id": "x", "response": "y"}])
    with pytest.raises(DataError, match=r"none of 1 predictions belongs to an example of .*whose ids are 0, 1, 2"):
        import_predictions(read_predictions("a.jsonl"), data=data, out=folder / "responses.jsonl")
    assert not (folder / "responses.jsonl").exists()
