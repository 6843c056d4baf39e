import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreward.data import formats
from longreward.errors import DataError
from longreward.records import (
    DIMENSIONS,
    Evidence,
    Example,
    Extract,
    Extraction,
    PreferencePair,
    Response,
    ScoredResponse,
    Statement,
    Verdict,
)

RESPONSE = Response(id="11-3", example_id="11", query="When?", text="In 1912.", tokens=4, finish_reason="stop")
FAITHFULNESS = Verdict(
    score=5.0,
    statements=(
        Statement(
            text="It was 1912.", support=1.0, analysis="yes", evidence=(Evidence(start=3, end=9, text="1912 so"),)
        ),
        Statement(text="It rained.", support=0.0, analysis="no"),
    ),
    prompt_hashes=("ab", "cd"),
    judge="offline",
    calls=3,
    prompt_tokens=30,
    completion_tokens=6,
)


def scored(**scores: float | None) -> ScoredResponse:
    verdicts = {d: Verdict(score=scores.get(d, 8.0), reason="unreadable" if d in scores else None) for d in DIMENSIONS}
    return ScoredResponse(response=RESPONSE, verdicts=verdicts)


def test_published_example_keeps_idx_and_gets_document_id(tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_text('{"idx": 11, "query": "When?", "answer": "Then.", "context": "A  text."}\n')
    (example,) = formats.read_examples(path)
    assert (example.id, example.query, example.answer, example.context) == ("11", "When?", "Then.", "A  text.")
    assert example.document_id == formats.document_id("A text.")
    assert formats.example_to_row(example)["idx"] == 11


def test_dpo_row_reads_as_example_and_as_pair(tmp_path: Path) -> None:
    path = tmp_path / "dpo.jsonl"
    path.write_text('{"idx": 7, "context": "c", "query": "q", "win_response": "w", "lose_response": "l"}\n')
    (example,) = formats.read_examples(path)
    assert example.answer is None
    (pair,) = formats.read_pairs(path)
    assert (pair.chosen.text, pair.rejected.text) == ("w", "l")


def test_longbench_row_reads_as_example() -> None:
    row = {"_id": "5f", "input": "谁？", "context": "文本", "answers": ["他", "她"], "length": 3, "dataset": "m"}
    example = formats.example_from_row(row)
    assert (example.id, example.query, example.answer) == ("5f", "谁？", "他")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"idx": 1, "query": "q", "context": "c"', "not JSON"),
        (b'{"idx": 1, "query": "q", "context": "\xff"}', "not UTF-8 (byte 0xff"),
        (b"[1]", "a JSON list"),
        (b'{"query": "q", "context": "c"}', "idx is None"),
        (b'{"idx": true, "query": "q", "context": "c"}', "idx is True"),
        (b'{"idx": 1, "query": 5, "context": "c"}', "query is int"),
        (b'{"idx": 1, "query": "q", "context": " "}', "context is empty"),
        (b'{"idx": 1, "query": "", "context": "c"}', "query is empty"),
        (b'{"_id": "a", "input": "", "answers": ["s"], "context": "c"}', "set it to the task of this data set"),
        (b'{"idx": 1, "query": "q', "not JSON (Invalid control character at column 23)"),
        (b'{"idx": 1, "question": "q", "context": "c"}', "query is missing; the row has 'idx', 'question', 'context'"),
    ],
)
def test_bad_line_reported_with_number_and_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_bytes(b'{"idx": 0, "query": "q", "context": "c"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match="line 3") as caught:
        list(formats.read_examples(path))
    assert reason in str(caught.value)


def test_whole_floats_are_valid_ids() -> None:
    row = {"query": "q", "context": "c"}
    assert formats.example_from_row(row | {"idx": 3.0}).id == "3"
    assert formats.example_from_row(row | {"idx": 3, "document": 7.0}).document_id == "7"
    assert formats.example_from_row(row | {"idx": 3, "document": float("nan")}).document_id == formats.document_id("c")
    for idx in (3.5, float("nan"), 2.0**60):
        with pytest.raises(formats.RowError, match="expected a whole number or a name; write names as text"):
            formats.example_from_row(row | {"idx": idx})


def test_published_id() -> None:
    assert formats.published_id("12") == 12
    assert formats.published_id("012") == "012"
    assert formats.published_id("9" * 5000) == "9" * 5000


def test_row_that_fits_longbench_and_published_form_is_rejected(tmp_path: Path) -> None:
    row = {"_id": "5f", "input": "Who?", "answers": ["He."], "context": "c", "query": "When?"}
    with pytest.raises(formats.RowError, match="fits two forms: it has input and answers, as LongBench, and query"):
        formats.example_from_row(row)
    assert formats.example_from_row(row | {"query": None}).query == "Who?"


@given(st.text(alphabet=st.sampled_from("ab \n\t\u3000\x1c\u2009é字"), max_size=40), st.integers(1, 5))
def test_hash_words_does_not_depend_on_piece_size(text: str, piece: int) -> None:
    expected = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "HASHED_CHARACTERS", piece)
        assert formats.hash_words(text).hexdigest() == expected


def test_missing_file_empty_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        list(formats.read_examples(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="No such file"):
        list(formats.read_examples(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="Is a directory"):
        list(formats.read_examples(tmp_path))


@pytest.mark.parametrize("idx", ["11", 11, "a-b", "-3", "a-²", "a-" + "9" * 5000])
def test_response_without_sample_number_rejected(idx: object) -> None:
    with pytest.raises(formats.RowError, match="<example>-<n>"):
        formats.response_from_row({"idx": idx, "query": "q", "answer": "a"})


def test_example_id_may_contain_dashes() -> None:
    assert formats.response_from_row({"idx": "doc-a-3", "query": "q", "answer": "a"}).example_id == "doc-a"


def test_complete_score_row_has_published_fields() -> None:
    row = formats.scored_to_row(scored(faithfulness=5.0))
    assert row["scores"] == {
        "helpfulness": 8.0,
        "logicality": 8.0,
        "faithfulness": 5.0,
        "completeness": 8.0,
        "total": 29.0,
    }
    assert row["reward"] == 7.25
    assert (row["idx"], row["answer"]) == ("11-3", "In 1912.")


def test_incomplete_score_row_has_no_total() -> None:
    row = formats.scored_to_row(scored(logicality=None))
    assert row["scores"]["total"] is None
    assert row["reward"] is None
    assert row["unscored"] == {"logicality": "unreadable"}


def test_scored_response_round_trip() -> None:
    verdicts = {**scored().verdicts, "faithfulness": FAITHFULNESS}
    before = ScoredResponse(response=RESPONSE, verdicts=verdicts)
    assert formats.scored_from_row(json.loads(json.dumps(formats.scored_to_row(before)))) == before


def test_published_score_row_read() -> None:
    row = {
        "idx": "11-0",
        "query": "q",
        "answer": "a",
        "scores": {"helpfulness": 8, "logicality": 9, "faithfulness": 10.0, "completeness": 7, "total": 34.0},
        "details": {
            "helpfulness": {"analysis": "good [[8]]", "score": 8},
            "faithfulness": {
                "score": 10.0,
                "facts": {"f": 1},
                "details": [
                    {"fact": "f", "analysis": "[[Fully supported]]", "score": 1, "evidences": [{"content": "e"}]}
                ],
            },
        },
    }
    parsed = formats.scored_from_row(row)
    assert parsed.reward == 8.5
    assert parsed.verdicts["faithfulness"].statements[0].evidence[0].text == "e"


def test_extracts_with_equal_percentages_joined() -> None:
    def extract(start: int, text: str | None) -> Extract:
        return Extract(start=start, end=start + 5, first_percent=1, last_percent=1, text=text)

    extraction = Extraction(example_id="11", query="q", extracts=(extract(0, "one"), extract(5, "two")))
    row = formats.extraction_to_row(extraction)
    assert row["info_list"] == {"1% - 1%": "one\ntwo"}
    assert formats.extraction_from_row(row) == extraction


def test_published_chunk_info_read_in_order() -> None:
    row = {"idx": 11, "query": "q", "info_list": {"0% - 30%": "1. x", "30% - 100%": "No relevant information"}}
    extracts = formats.extraction_from_row(row).extracts
    assert [(e.first_percent, e.last_percent, e.text) for e in extracts] == [(0, 30, "1. x"), (30, 100, None)]


def test_pair_round_trip(tmp_path: Path) -> None:
    other = RESPONSE.model_copy(update={"id": "11-4", "text": "Never.", "tokens": None, "finish_reason": None})
    plain = RESPONSE.model_copy(update={"tokens": None, "finish_reason": None})
    pair = PreferencePair(
        id="11", context="c", query="When?", chosen=plain, rejected=other, chosen_reward=8.0, rejected_reward=2.5
    )
    formats.write_pairs(tmp_path / "pairs.jsonl", [pair])
    assert list(formats.read_pairs(tmp_path / "pairs.jsonl")) == [pair]


SAMPLED = RESPONSE.model_copy(
    update={"token_ids": (5, 151_645, 3), "prompt_tokens": 70_000, "prompt_hash": "0123456789abcdef"}
)


def test_sampling_fields_round_trip_through_all_files(tmp_path: Path) -> None:
    truncated = SAMPLED.model_copy(update={"id": "11-4", "token_ids": (7, 8), "finish_reason": "length", "tokens": 2})
    formats.write_responses(tmp_path / "sampled.jsonl", [SAMPLED, truncated])
    assert list(formats.read_responses(tmp_path / "sampled.jsonl")) == [SAMPLED, truncated]
    both = [scored().model_copy(update={"response": response}) for response in (SAMPLED, truncated)]
    formats.write_scored(tmp_path / "scored.jsonl", both)
    assert [item.response for item in formats.read_scored(tmp_path / "scored.jsonl")] == [SAMPLED, truncated]
    pair = PreferencePair(
        id="11", context="c", query="When?", chosen=SAMPLED, rejected=truncated, chosen_reward=8.0, rejected_reward=2.5
    )
    formats.write_pairs(tmp_path / "pairs.jsonl", [pair])
    assert list(formats.read_pairs(tmp_path / "pairs.jsonl")) == [pair]
    row = json.loads((tmp_path / "pairs.jsonl").read_text())
    assert (row["win_token_ids"], row["lose_finish_reason"]) == ([5, 151_645, 3], "length")


@pytest.mark.parametrize("ids", [[1, -1], [1.5], ["a"], 7])
def test_invalid_token_ids_reported_with_line(tmp_path: Path, ids: object) -> None:
    row = {"idx": "11-0", "query": "q", "answer": "a", "token_ids": ids}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"x\.jsonl, line 1: token_ids"):
        list(formats.read_responses(tmp_path / "x.jsonl"))


def test_surrogates_round_trip(tmp_path: Path) -> None:
    example = Example(id="1", document_id="d", context="broken \ud800 half", query="q")
    formats.write_examples(tmp_path / "x.jsonl", [example])
    assert list(formats.read_examples(tmp_path / "x.jsonl")) == [example]
