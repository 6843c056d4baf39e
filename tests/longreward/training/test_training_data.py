"""Rows of token ids in memory and on disk, and data that is refused before the first step."""

import json

import pytest
from preference_pairs import make_pair

from longreward.errors import DataError, PolicyError, StateError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.models.sampling import SampleConfig, encode_prompt
from longreward.records import Example
from longreward.training import training_data
from longreward.training.training_data import tokenize_examples, tokenize_pairs

TOWN = Example(id="7", document_id="1", context="the town is north .", query="where is it ?", answer="it is north .")


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def test_only_answer_and_end_have_labels(policy):
    [row] = tokenize_examples(policy.encoder, [TOWN], max_length=64).rows
    # <s> <|user|> the town is north . where is it ? <|assistant|> | it is north . </s>
    assert row["input_ids"] == [2, 4, 6, 16, 9, 19, 35, 13, 9, 31, 34, 5, 31, 9, 19, 35, 3]
    assert row["labels"] == [-100] * 12 + [31, 9, 19, 35, 3]
    assert row["length"] == 17


def test_sft_sampling_and_dpo_have_same_prompt(policy):
    [row] = tokenize_examples(policy.encoder, [TOWN], max_length=64).rows
    [pair] = tokenize_pairs(policy.encoder, [make_pair(7, "it is north .", "it is south .")], max_length=64).rows
    sampled, was_cut = encode_prompt(policy, TOWN, SampleConfig(max_new_tokens=8))
    assert row["input_ids"][:12] == pair["prompt_ids"] == sampled == policy.encoder.prompt_ids(TOWN.context, TOWN.query)
    assert not was_cut


def test_pair_has_both_responses(policy):
    [row] = tokenize_pairs(policy.encoder, [make_pair(7, "it is north .", "south")], max_length=17).rows
    assert row["chosen_ids"] == [31, 9, 19, 35, 3]
    assert row["rejected_ids"] == [20, 3]
    assert row["length"] == 17


def test_pair_that_does_not_fit_is_refused_with_lengths(policy):
    with pytest.raises(PolicyError, match=r"1 of 1 pairs .* 16 tokens(.|\n)*pair 7: 12 of the prompt and 5 of the"):
        tokenize_pairs(policy.encoder, [make_pair(7, "south", "it is north .")], max_length=16)


def test_example_that_does_not_fit_is_refused_with_lengths(policy):
    with pytest.raises(PolicyError, match=r"example 7: 12 of the prompt and 5 of the answer"):
        tokenize_examples(policy.encoder, [TOWN], max_length=16)


def test_many_refusals_counted_and_some_listed(policy):
    with pytest.raises(PolicyError, match=r"8 of 8 examples(.|\n)*and 3 more"):
        tokenize_examples(policy.encoder, [TOWN] * 8, max_length=16)


def test_keep_ends_cuts_prompts_but_not_answers(policy):
    data = tokenize_pairs(
        policy.encoder, [make_pair(7, "it is north .", "south")], max_length=16, over_window="keep_ends"
    )
    assert data.rows[0]["prompt_ids"] == [2, 4, 6, 16, 9, 35, 13, 9, 31, 34, 5]  # "north" is the one that went
    assert data.rows[0]["chosen_ids"] == [31, 9, 19, 35, 3]
    assert data.stats.cut_prompts == 1


def test_answer_without_room_for_prompt_refused(policy):
    for answer in (18, 20):  # 19 and 21 tokens of 20 with the end: a prompt that loses its middle keeps two
        with pytest.raises(
            PolicyError, match=rf"cutting the prompt cannot help(.|\n)*12 of the prompt and {answer + 1} of the longer"
        ):
            tokenize_pairs(
                policy.encoder, [make_pair(7, "north " * answer, "south")], max_length=20, over_window="keep_ends"
            )
    assert tokenize_pairs(
        policy.encoder, [make_pair(7, "north " * 17, "south")], max_length=20, over_window="keep_ends"
    ).rows


def test_no_data_refused(policy):
    with pytest.raises(DataError, match="no pairs"):
        tokenize_pairs(policy.encoder, [], max_length=64)
    with pytest.raises(DataError, match="no examples"):
        tokenize_examples(policy.encoder, [], max_length=64)


def test_example_without_answer_refused(policy):
    with pytest.raises(DataError, match="example 7 has no answer"):
        tokenize_examples(policy.encoder, [TOWN.model_copy(update={"answer": None})], max_length=64)


def test_lengths_reported(policy):
    longer = TOWN.model_copy(update={"answer": "it is north of the river ."})
    assert tokenize_examples(policy.encoder, [TOWN, longer], max_length=64).stats.metrics() == {
        "examples": 2,
        "longest": 20,
        "mean_length": 18.5,
        "cut_prompts": 0,
    }


PAIRS = [make_pair(7, "it is north .", "south"), make_pair(8, "north", "it is south .")]


def unreadable():
    raise AssertionError("tokenized again")
    yield


def test_rows_on_disk_equal_rows_in_memory(policy, tmp_path):
    in_memory = tokenize_pairs(policy.encoder, PAIRS, max_length=64)
    stored = tokenize_pairs(policy.encoder, PAIRS, max_length=64, rows_dir=tmp_path / "state/key/rows")
    assert stored.rows[:] == in_memory.rows[:]
    assert stored.rows["id"][:] == ["7", "8"]
    assert stored.stats == in_memory.stats
    examples = tokenize_examples(policy.encoder, [TOWN], max_length=64, rows_dir=tmp_path / "sft/key/rows")
    assert examples.rows[0] == tokenize_examples(policy.encoder, [TOWN], max_length=64).rows[0]


def test_token_ids_are_int32_in_rows_folder_only(policy, tmp_path):
    result = tokenize_pairs(policy.encoder, PAIRS, max_length=64, rows_dir=tmp_path / "rows").rows
    assert str(result.data.schema.field("prompt_ids").type) == "list<item: int32>"
    assert [file["filename"] for file in result.cache_files] == [str(tmp_path / "rows/rows.arrow")]


def test_stored_rows_reused(policy, tmp_path):
    first = tokenize_pairs(policy.encoder, PAIRS, max_length=64, rows_dir=tmp_path / "rows")
    second = tokenize_pairs(policy.encoder, unreadable(), max_length=64, rows_dir=tmp_path / "rows")
    assert second.rows[:] == first.rows[:]
    assert second.stats == first.stats


@pytest.mark.parametrize("damage", ["unmarked", "shortened", "unreadable"])
def test_partial_rows_written_again(policy, tmp_path, damage):
    tokenize_pairs(policy.encoder, PAIRS, max_length=64, rows_dir=tmp_path / "rows")
    mark, arrow = tmp_path / "rows/complete.json", tmp_path / "rows/rows.arrow"
    if damage == "unmarked":
        mark.unlink()
    elif damage == "shortened":
        arrow.write_bytes(arrow.read_bytes()[:-8])
    else:
        mark.write_text("{")
    assert training_data.open_rows(tmp_path / "rows") is None
    assert tokenize_pairs(policy.encoder, PAIRS[:1], max_length=64, rows_dir=tmp_path / "rows").rows["id"][:] == ["7"]
    assert json.loads(mark.read_text())["bytes"] == arrow.stat().st_size


def test_refused_data_leaves_no_new_folder(policy, tmp_path):
    with pytest.raises(PolicyError, match="pair 7: 12 of the prompt and 5 of the longer answer"):
        tokenize_pairs(policy.encoder, PAIRS, max_length=16, rows_dir=tmp_path / "state/key/rows")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "state/key").mkdir(parents=True)
    (tmp_path / "state/key/reference.json").write_text("{}")
    with pytest.raises(PolicyError):
        tokenize_pairs(policy.encoder, PAIRS, max_length=16, rows_dir=tmp_path / "state/key/rows")
    assert [path.name for path in (tmp_path / "state/key").iterdir()] == ["reference.json"]


def test_unwritable_folder_is_error(policy, tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="state/rows: rows cannot be written"):
        tokenize_pairs(policy.encoder, PAIRS, max_length=64, rows_dir=tmp_path / "state/rows")


def test_many_rows_written_in_batches_and_keep_order(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "BATCH_ROWS", 3)
    rows = ({"id": str(n), "input_ids": [n] * n, "length": n} for n in range(20))
    training_data.write_rows(tmp_path / "rows", rows, lambda: {"count": 20})
    result, stats = training_data.open_rows(tmp_path / "rows")
    assert stats == {"count": 20}
    assert result.data.column("length").num_chunks > 5
    assert result[7] == {"id": "7", "input_ids": [7] * 7, "length": 7}
    assert result["length"][:] == list(range(20))


def test_token_ids_of_large_vocabularies_kept(tmp_path):
    ids = [1, 32_767, 32_768, 65_535, 65_536, 151_645, 262_143]  # beyond what two bytes hold, signed or not
    row = {"id": "7", "prompt_ids": ids, "chosen_ids": ids[::-1], "rejected_ids": ids[3:], "length": 14}
    training_data.write_rows(tmp_path / "rows", iter([row]), dict)
    result, _ = training_data.open_rows(tmp_path / "rows")
    assert result[0] == row
