import json

import pytest

from longreward.errors import PolicyError, StateError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer
from longreward.records import Example, PreferencePair, Response
from longreward.training import training_data
from longreward.training.training_data import tokenize_examples, tokenize_pairs

TOWN = Example(id="7", document_id="1", context="the town is north .", query="where is it ?", answer="it is north .")


def pair_of(id_: str, chosen: str, rejected: str) -> PreferencePair:
    def response(n: int, text: str) -> Response:
        return Response(id=f"{id_}-{n}", example_id=id_, query=TOWN.query, text=text)

    return PreferencePair(
        id=id_,
        context=TOWN.context,
        query=TOWN.query,
        chosen=response(0, chosen),
        rejected=response(1, rejected),
        chosen_reward=9.0,
        rejected_reward=2.0,
    )


PAIRS = [pair_of("7", "it is north .", "south"), pair_of("8", "north", "it is south .")]


@pytest.fixture(scope="module")
def text(tiny_policy):
    return load_tokenizer(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def never_read():
    raise AssertionError("tokenised again")
    yield


def test_rows_on_the_disk_are_those_in_memory(text, tmp_path):
    in_memory = tokenize_pairs(text, PAIRS, max_length=64)
    kept = tokenize_pairs(text, PAIRS, max_length=64, rows_dir=tmp_path / "state/key/rows")
    assert [kept.rows[0], kept.rows[1]] == in_memory.rows
    assert kept.rows["id"][:] == ["7", "8"]
    assert kept.stats == in_memory.stats
    examples = tokenize_examples(text, [TOWN], max_length=64, rows_dir=tmp_path / "sft/key/rows")
    assert examples.rows[0] == tokenize_examples(text, [TOWN], max_length=64).rows[0]


def test_token_ids_lie_in_the_trainings_folder_as_four_bytes_each_and_nowhere_else(text, tmp_path):
    found = tokenize_pairs(text, PAIRS, max_length=64, rows_dir=tmp_path / "rows").rows
    assert str(found.data.schema.field("prompt_ids").type) == "list<item: int32>"
    assert [file["filename"] for file in found.cache_files] == [str(tmp_path / "rows/rows.arrow")]


def test_a_second_start_finds_them_tokenised(text, tmp_path):
    first = tokenize_pairs(text, PAIRS, max_length=64, rows_dir=tmp_path / "rows")
    second = tokenize_pairs(text, never_read(), max_length=64, rows_dir=tmp_path / "rows")
    assert second.rows[:] == first.rows[:]
    assert second.stats == first.stats


@pytest.mark.parametrize("damage", ["unmarked", "shortened", "unreadable"])
def test_half_written_rows_are_written_anew(text, tmp_path, damage):
    tokenize_pairs(text, PAIRS, max_length=64, rows_dir=tmp_path / "rows")
    mark, arrow = tmp_path / "rows/complete.json", tmp_path / "rows/rows.arrow"
    if damage == "unmarked":
        mark.unlink()
    elif damage == "shortened":
        arrow.write_bytes(arrow.read_bytes()[:-8])
    else:
        mark.write_text("{")
    assert training_data.open_rows(tmp_path / "rows") is None
    assert tokenize_pairs(text, PAIRS[:1], max_length=64, rows_dir=tmp_path / "rows").rows["id"][:] == ["7"]
    assert json.loads(mark.read_text())["bytes"] == arrow.stat().st_size


def test_a_refusal_leaves_no_folder_behind_but_what_was_there(text, tmp_path):
    with pytest.raises(PolicyError, match="pair 7: 12 of the prompt and 5 of the longer answer"):
        tokenize_pairs(text, PAIRS, max_length=16, rows_dir=tmp_path / "state/key/rows")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "state/key").mkdir(parents=True)
    (tmp_path / "state/key/reference.json").write_text("{}")
    with pytest.raises(PolicyError):
        tokenize_pairs(text, PAIRS, max_length=16, rows_dir=tmp_path / "state/key/rows")
    assert [path.name for path in (tmp_path / "state/key").iterdir()] == ["reference.json"]


def test_a_folder_that_cannot_be_written_is_said(text, tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="state/rows: rows cannot be written"):
        tokenize_pairs(text, PAIRS, max_length=64, rows_dir=tmp_path / "state/rows")


def test_many_rows_are_written_in_more_than_one_piece_and_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "BATCH_TOKENS", 10)
    training_data.write_rows(tmp_path / "rows", ({"id": str(n), "input_ids": [n] * n, "length": n} for n in range(20)))
    training_data.mark_rows_complete(tmp_path / "rows", {"count": 20})
    found, noted = training_data.open_rows(tmp_path / "rows")
    assert noted == {"count": 20}
    assert found.data.column("length").num_chunks > 5
    assert found[7] == {"id": "7", "input_ids": [7] * 7, "length": 7}
    assert found["length"][:] == list(range(20))


def test_token_ids_of_large_vocabularies_are_kept(tmp_path):
    ids = [1, 32_767, 32_768, 65_535, 65_536, 151_645, 262_143]  # beyond what two bytes hold, signed or not
    row = {"id": "7", "prompt_ids": ids, "chosen_ids": ids[::-1], "rejected_ids": ids[3:], "length": 14}
    training_data.write_rows(tmp_path / "rows", [row])
    training_data.mark_rows_complete(tmp_path / "rows", {})
    found, _ = training_data.open_rows(tmp_path / "rows")
    assert found[0] == row
