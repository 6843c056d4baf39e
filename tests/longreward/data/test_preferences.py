"""Preference data of others, in the layouts of TRL, UltraFeedback and the LongReward authors, as pairs to train on."""

import json
from pathlib import Path
from typing import Any

import pytest

from longreward.data.formats import read_pairs
from longreward.data.preferences import PairsConfig, preference_from_row
from longreward.data.prepare import PrepareConfig, prepare, prepare_pairs
from longreward.errors import ConfigError, DataError
from longreward.records import PreferencePair
from longreward.utils.jsonl import RowError

USER = {"role": "user", "content": "What colour is the sky?"}
BETTER = {"role": "assistant", "content": "It is blue."}
WORSE = {"role": "assistant", "content": "Green, as everybody knows."}


def pair_of(row: dict[str, Any], **settings: Any) -> PreferencePair:
    return preference_from_row(row, PairsConfig.parse(settings, source="test"), 7)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": USER["content"], "chosen": "It is blue.", "rejected": WORSE["content"]},
        {"prompt": [USER], "chosen": [BETTER], "rejected": [WORSE]},  # TRL, conversational
        {"chosen": [USER, BETTER], "rejected": [USER, WORSE]},  # TRL, implicit prompt
        {  # HuggingFaceH4/ultrafeedback_binarized
            "prompt": USER["content"],
            "prompt_id": "f0e3",
            "chosen": [USER, BETTER],
            "rejected": [USER, WORSE],
            "messages": [USER, BETTER],
            "score_chosen": 8.5,
            "score_rejected": 3.0,
        },
        {
            "prompt": [{**USER, "content": [{"type": "text", "text": USER["content"]}]}],
            "chosen": [BETTER],
            "rejected": [WORSE],
        },
        {"context": "", "query": USER["content"], "win_response": "It is blue.", "lose_response": WORSE["content"]},
    ],
)
def test_every_layout_of_a_preference_is_the_same_pair(row: dict[str, Any]) -> None:
    pair = pair_of(row)
    assert (pair.id, pair.context, pair.query) == ("7", "", "What colour is the sky?")
    assert (pair.chosen.text, pair.rejected.text) == ("It is blue.", "Green, as everybody knows.")
    assert (pair.chosen.id, pair.rejected.id) == ("7-0", "7-1")
    assert (pair.method, pair.margin) == ("given", None)


def test_a_document_may_stand_in_its_own_column_and_columns_may_have_other_names() -> None:
    row = {"id": 3.0, "q": "Who?", "win": "Ada.", "lose": "Bab.", "doc": ["One.", "Two."]}
    pair = pair_of(row, idx="id", prompt="q", chosen="win", rejected="lose", context="doc")
    assert (pair.id, pair.context, pair.query) == ("3", "One.\n\nTwo.", "Who?")
    published = {"context": "One.", "query": "Who?", "win_response": "Ada.", "lose_response": "Bab.", "idx": 11}
    assert pair_of(published, idx="idx").context == "One."
    both = published | {"prompt": "Where?", "chosen": "Here.", "rejected": "There, or not."}
    assert pair_of(both).query == "Where?"  # the columns that the settings name come first


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}, "prompt is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "both answers are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected is empty"),
        ({"prompt": "a", "chosen": [USER, BETTER], "rejected": [BETTER, USER, WORSE]}, "a chat of several turns"),
        ({"chosen": [USER, BETTER], "rejected": [{**USER, "content": "Why?"}, WORSE]}, "answer different prompts"),
        ({"chosen": [USER, {**BETTER, "tool_calls": [{"id": "1"}]}], "rejected": [USER, WORSE]}, "turn 1 .* tool call"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "tools": [{"name": "f"}]}, "the row has tools"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "context": 3}, "context is int, expected text"),
        ({"context": "c", "query": "", "win_response": "a", "lose_response": "b"}, "query is missing or no text"),
        ({"context": "c", "query": "q", "win_response": "a", "lose_response": "a"}, "both answers are the same"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_with_the_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        pair_of(row)


def test_a_name_that_short_instructions_have_is_refused() -> None:
    with pytest.raises(RowError, match=r"idx 'short/1' begins with 'short/'"):
        pair_of({"id": "short/1", "prompt": "a", "chosen": "b", "rejected": "c"}, idx="id")


def prepared(root: Path, rows: list[Any], **settings: Any) -> dict[str, float]:
    """Of these rows, beside 40 examples of which some are held out; the figures of the pairs."""
    raw = root / "data/raw"
    raw.mkdir(parents=True, exist_ok=True)
    questions = [{"idx": n, "query": f"Who is {n}?", "context": f"Text {n}."} for n in range(40)]
    (raw / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (raw / "pairs.jsonl").write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    pairs = {"source": "data/raw/pairs.jsonl", "context": "context", **settings}
    config = PrepareConfig.parse({"source": "data/raw/x.jsonl", "pairs": pairs, "max_bad_share": 0.2}, source="test")
    prepare(config, lambda context, query: 1, root=root, out=root / "out")
    return prepare_pairs(config, root=root, out=root / "out")


def given(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Where is {number}?", "chosen": f"In the north {number}.", "rejected": "Nowhere.", **more}


def test_pairs_are_checked_counted_and_kept_off_the_held_out_documents(tmp_path: Path) -> None:
    prepared(tmp_path, [given(0)])
    lines = (tmp_path / "out" / "heldout.jsonl").read_text().splitlines()
    held_out = json.loads(lines[0])
    trained = json.loads((tmp_path / "out" / "sft.jsonl").read_text().splitlines()[0])
    rows = [
        *map(given, range(10)),
        "nonsense",
        given(3),
        given(20, context=f" {held_out['context']}\n"),
        given(21, context=trained["context"]),
        given(22, prompt=f"{held_out['context']}\n\n{held_out['query']}"),  # document and question in one text
    ]
    figures = prepared(tmp_path, rows)
    assert figures == {"pairs": 11, "pairs/records": 15, "pairs/bad": 1, "pairs/duplicates": 1, "pairs/held_out": 2}
    kept = list(read_pairs(tmp_path / "out" / "pairs.jsonl"))
    assert [pair.id for pair in kept] == [*map(str, range(10)), "13"]
    assert kept[-1].context == trained["context"]
    left_out = [json.loads(line) for line in (tmp_path / "out" / "rejected_pairs.jsonl").read_text().splitlines()]
    assert [(row["line"], row["idx"], row["reason"][:35]) for row in left_out] == [
        (11, "10", "not JSON (Expecting value at column"[:35]),
        (12, "11", "the same pair as line 4"),
        (13, "12", "its document or prompt is held out "),
        (15, "14", "its document or prompt is held out "),
    ]


def test_a_source_of_which_too_much_is_bad_fails_and_names_the_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)2 of 3 records of data/raw/pairs\.jsonl are bad.*line 2: both answers"):
        prepared(tmp_path, [given(0), given(1, chosen="Nowhere."), given(2, rejected=None)])
    assert not (tmp_path / "out" / "pairs.jsonl").exists()


def test_without_given_pairs_the_file_is_empty_and_a_source_elsewhere_needs_its_checksum(tmp_path: Path) -> None:
    prepared(tmp_path, [given(0)])
    assert prepare_pairs(PrepareConfig(), root=tmp_path, out=tmp_path / "out") == {}
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == b""
    (tmp_path / "elsewhere.jsonl").write_text(json.dumps(given(0)))
    with pytest.raises(ConfigError, match=r"prepare\.pairs\.checksum: sha256:"):
        prepared(tmp_path, [], source="elsewhere.jsonl")
    with pytest.raises(ConfigError, match=r"prepare\.pairs\.hub\.revision is not set"):
        prepared(tmp_path, [], source="hub:HuggingFaceH4/ultrafeedback_binarized")
    with pytest.raises(ConfigError, match=r"responses and pairs\.source are both set"):
        PrepareConfig.parse({"responses": "data/raw/a.jsonl", "pairs": {"source": "data/raw/b.jsonl"}}, source="test")
