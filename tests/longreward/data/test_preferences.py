"""Preference data in the layouts of TRL, UltraFeedback and the LongReward authors."""

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


def parse(row: dict[str, Any], **settings: Any) -> PreferencePair:
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
def test_all_layouts_give_same_pair(row: dict[str, Any]) -> None:
    pair = parse(row)
    assert (pair.id, pair.context, pair.query) == ("7", "", "What colour is the sky?")
    assert (pair.chosen.text, pair.rejected.text) == ("It is blue.", "Green, as everybody knows.")
    assert (pair.chosen.id, pair.rejected.id) == ("7-0", "7-1")
    assert (pair.method, pair.margin) == ("given", None)


def test_configured_columns_and_document_column() -> None:
    row = {"id": 3.0, "q": "Who?", "win": "Ada.", "lose": "Bab.", "doc": ["One.", "Two."]}
    pair = parse(row, idx="id", prompt="q", chosen="win", rejected="lose", context="doc")
    assert (pair.id, pair.context, pair.query) == ("3", "One.\n\nTwo.", "Who?")
    published = {"context": "One.", "query": "Who?", "win_response": "Ada.", "lose_response": "Bab.", "idx": 11}
    assert parse(published, idx="idx").context == "One."
    both = published | {"prompt": "Where?", "chosen": "Here.", "rejected": "There, or not."}
    assert parse(both).query == "Where?"  # the columns that the settings name come first


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}, "prompt is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "both responses are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected is empty"),
        ({"prompt": "a", "chosen": [USER, BETTER], "rejected": [BETTER, USER, WORSE]}, "a chat of several turns"),
        ({"chosen": [USER, BETTER], "rejected": [{**USER, "content": "Why?"}, WORSE]}, "have different prompts"),
        ({"chosen": [USER, {**BETTER, "tool_calls": [{"id": "1"}]}], "rejected": [USER, WORSE]}, "turn 1 .* tool call"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "tools": [{"name": "f"}]}, "the row has tools"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "context": 3}, "context is int, expected text"),
        ({"context": "c", "query": "", "win_response": "a", "lose_response": "b"}, "query is empty"),
        ({"context": "c", "query": "q", "win_response": "a", "lose_response": "a"}, "both responses are the same"),
    ],
)
def test_unusable_row_rejected_with_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        parse(row)


def test_reserved_idx_rejected() -> None:
    with pytest.raises(RowError, match=r"idx 'short/1' begins with 'short/'"):
        parse({"id": "short/1", "prompt": "a", "chosen": "b", "rejected": "c"}, idx="id")


def run_prepare_pairs(root: Path, rows: list[Any], **settings: Any) -> dict[str, float]:
    """Prepare 40 examples, some of them held out, and these pairs; return the metrics of the pairs."""
    raw = root / "data/raw"
    raw.mkdir(parents=True, exist_ok=True)
    questions = [{"idx": n, "query": f"Who is {n}?", "context": f"Text {n}."} for n in range(40)]
    (raw / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (raw / "pairs.jsonl").write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    pairs = {"source": "data/raw/pairs.jsonl", "context": "context", **settings}
    config = PrepareConfig.parse({"source": "data/raw/x.jsonl", "pairs": pairs, "max_bad_share": 0.2}, source="test")
    prepare(config, lambda context, query: 1, root=root, out=root / "out")
    return prepare_pairs(config, root=root, out=root / "out")


def make_row(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": f"Where is {number}?", "chosen": f"In the north {number}.", "rejected": "Nowhere.", **fields}


def test_prepare_pairs_rejects_duplicates_and_held_out_texts(tmp_path: Path) -> None:
    run_prepare_pairs(tmp_path, [make_row(0)])
    lines = (tmp_path / "out" / "heldout.jsonl").read_text().splitlines()
    held_out = json.loads(lines[0])
    trained = json.loads((tmp_path / "out" / "sft.jsonl").read_text().splitlines()[0])
    rows = [
        *map(make_row, range(10)),
        "nonsense",
        make_row(3),
        make_row(20, context=f" {held_out['context']}\n"),
        make_row(21, context=trained["context"]),
        make_row(22, prompt=f"{held_out['context']}\n\n{held_out['query']}"),  # document and question in one text
    ]
    metrics = run_prepare_pairs(tmp_path, rows)
    assert metrics == {"pairs": 11, "pairs/records": 15, "pairs/bad": 1, "pairs/duplicates": 1, "pairs/held_out": 2}
    kept = list(read_pairs(tmp_path / "out" / "pairs.jsonl"))
    assert [pair.id for pair in kept] == [*map(str, range(10)), "13"]
    assert kept[-1].context == trained["context"]
    rejected_rows = [json.loads(line) for line in (tmp_path / "out" / "rejected_pairs.jsonl").read_text().splitlines()]
    assert [(row["line"], row["idx"], row["reason"][:35]) for row in rejected_rows] == [
        (11, "10", "not JSON (Expecting value at column"[:35]),
        (12, "11", "the same pair as line 4"),
        (13, "12", "its document or prompt is held out "),
        (15, "14", "its document or prompt is held out "),
    ]


def test_too_many_bad_pairs_fail_with_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)2 of 3 records of data/raw/pairs\.jsonl are bad.*line 2: both responses"):
        run_prepare_pairs(tmp_path, [make_row(0), make_row(1, chosen="Nowhere."), make_row(2, rejected=None)])
    assert not (tmp_path / "out" / "pairs.jsonl").exists()


def test_pairs_source_is_optional_and_must_be_pinned(tmp_path: Path) -> None:
    run_prepare_pairs(tmp_path, [make_row(0)])
    assert prepare_pairs(PrepareConfig(), root=tmp_path, out=tmp_path / "out") == {}
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == b"\n"  # DVC warns about 0 bytes
    (tmp_path / "elsewhere.jsonl").write_text(json.dumps(make_row(0)))
    with pytest.raises(ConfigError, match=r"prepare\.pairs\.checksum: sha256:"):
        run_prepare_pairs(tmp_path, [], source="elsewhere.jsonl")
    with pytest.raises(ConfigError, match=r"prepare\.pairs\.hub\.revision is not set"):
        run_prepare_pairs(tmp_path, [], source="hub:HuggingFaceH4/ultrafeedback_binarized")
    with pytest.raises(ConfigError, match=r"responses and pairs\.source are both set"):
        PrepareConfig.parse({"responses": "data/raw/a.jsonl", "pairs": {"source": "data/raw/b.jsonl"}}, source="test")
