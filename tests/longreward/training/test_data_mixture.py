"""Short-context preferences mixed into long pairs: sampling, order in training, and metrics by source."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from preference_pairs import make_pair
from tiny_sizes import FAST_TRAINING

from longreward.data.formats import read_examples, read_pairs, write_examples, write_pairs
from longreward.errors import ConfigError, DataError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer
from longreward.records import Example, PreferencePair
from longreward.training.data_mixture import DataMixture, ShortAnswers, ShortPreferences, mix_examples, mix_pairs
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.length_grouping import LengthGroupedSampler
from longreward.training.trainers import metrics_by_source

FAST = TrainConfig(
    learning_rate=5e-3,
    max_steps=6,
    batch_size=4,
    micro_batch=2,
    **FAST_TRAINING,
)


def long_pair(number: int) -> PreferencePair:
    context = "anna is the mayor and ben was it . the bridge stands in the south ."
    return make_pair(number, "anna is the mayor .", "ben .", context=context, query="who is mayor ?")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Four long ones."""
    write_pairs(tmp_path / "pairs.jsonl", map(long_pair, range(4)))
    return tmp_path / "pairs.jsonl"


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"where is {n} ?", "chosen": f"north {n} .", "rejected": "who ?"} for n in range(count)]


def pinned(source: Path) -> str:
    return "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()


def mixed_in(pairs: Path, source_rows: list[Any], **settings: Any) -> DataMixture:
    """Of a file with these rows, pinned."""
    source = pairs.parent / "short.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in source_rows), encoding="utf-8")
    config = ShortPreferences(source=str(source), sha256=pinned(source), **settings)
    return mix_pairs(config, pairs, out=pairs.parent / "mixed.jsonl")


def short_ids(mixed: DataMixture) -> list[str]:
    return [pair.id for pair in read_pairs(mixed.data) if pair.method == "given"]


def test_default_mixes_nothing_in(pairs: Path, tmp_path: Path) -> None:
    mixed = mix_pairs(ShortPreferences(), pairs, out=tmp_path / "mixed.jsonl")
    assert (mixed.data, mixed.metrics()) == (pairs, {})
    assert not (tmp_path / "mixed.jsonl").exists()


@pytest.mark.parametrize(("ratio", "count"), [(0.5, 2), (1, 4), (1.5, 6), (0.01, 1)])
def test_ratio_is_short_pairs_per_long_pair(pairs: Path, ratio: float, count: int) -> None:
    mixed = mixed_in(pairs, rows(20), ratio=ratio)
    pairs_read = list(read_pairs(mixed.data))
    assert [row.id for row in pairs_read[:4]] == ["0", "1", "2", "3"]
    assert len(pairs_read) == 4 + count
    assert mixed.metrics() == {"long/records": 4, "short/records": count, "short/skipped": 0}


def test_sampling_depends_on_seed_and_reaches_every_record(pairs: Path) -> None:
    samples = [tuple(short_ids(mixed_in(pairs, rows(12), ratio=0.5, seed=seed))) for seed in range(40)]
    assert samples[7] == tuple(short_ids(mixed_in(pairs, rows(12), ratio=0.5, seed=7)))
    assert {name for names in samples for name in names} == {f"short/{n}" for n in range(12)}


def test_small_source_used_entirely(pairs: Path) -> None:
    assert short_ids(mixed_in(pairs, rows(3), ratio=2)) == ["short/0", "short/1", "short/2"]


def test_builtin_source_needs_no_file(pairs: Path, tmp_path: Path) -> None:
    mixed = mix_pairs(ShortPreferences(source="builtin", ratio=0.5), pairs, out=tmp_path / "mixed.jsonl")
    first, second = [pair for pair in read_pairs(mixed.data) if pair.method == "given"]
    assert (first.context, first.chosen.text) == ("", "Dora Abbot was born in Birchley.")
    assert second.chosen_reward is None


USER, GOOD, BAD = {"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Yes."}, "No."
SYSTEM = {"role": "system", "content": "Be kind."}
ANSWER = {"role": "assistant", "content": BAD}


@pytest.mark.parametrize(
    ("row", "query"),
    [
        ({"prompt": "Red?", "chosen": [USER, GOOD], "rejected": [USER, ANSWER]}, "Red?"),
        ({"chosen": [USER, GOOD], "rejected": [USER, ANSWER]}, "Red?"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [ANSWER]}, "Red?"),
        (
            {"prompt": [{"role": "system", "content": "Be kind."}, USER], "chosen": "Yes.", "rejected": BAD},
            "Be kind.\n\nRed?",
        ),
    ],
)
def test_texts_and_chats_give_same_pairs(pairs: Path, row: dict[str, Any], query: str) -> None:
    [pairs_read] = [pair for pair in read_pairs(mixed_in(pairs, [row]).data) if pair.method == "given"]
    assert (pairs_read.query, pairs_read.chosen.text, pairs_read.rejected.text) == (query, "Yes.", "No.")


def test_unusable_records_skipped_and_counted_by_reason(pairs: Path) -> None:
    several = [USER, GOOD, USER, GOOD]
    bad = [
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"chosen": several, "rejected": [USER, ANSWER]},
        {"chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": [USER], "rejected": "c"},
        {"prompt": "a", "chosen": " ", "rejected": "c"},
        {"prompt": "a", "chosen": 3, "rejected": "c"},
    ]
    mixed = mixed_in(pairs, [*bad, *rows(1)])
    assert short_ids(mixed) == ["short/6"]
    assert mixed.skipped == {
        "both responses are the same": 1,
        "chosen is a chat of several turns (user, assistant, user); only single questions are supported": 1,
        "prompt is missing; the row has 'chosen', 'rejected'": 1,
        "chosen is a chat that does not end with the assistant's turn": 1,
        "chosen is empty": 1,
        "chosen is int, expected a text or a chat": 1,
    }
    with pytest.raises(DataError, match=r"holds nothing that can be used: both responses are the same \(1 times\)"):
        mixed_in(pairs, bad[:1])


def test_public_layouts_read_and_first_skipped_record_logged(pairs: Path, caplog: pytest.LogCaptureFixture) -> None:
    share_gpt = {
        "chosen": [{"from": "human", "value": "Red?"}, {"from": "gpt", "value": "Yes."}],
        "rejected": [{**USER, "content": [{"type": "text", "text": "Red?"}]}, ANSWER],
    }
    tool = {"chosen": [USER, {**GOOD, "tool_calls": [{"id": "1"}]}], "rejected": [USER, ANSWER]}
    half = {"prompt": "a \ud83d", "chosen": "b", "rejected": "c"}
    mixed = mixed_in(pairs, [share_gpt, half, tool])
    [pairs_read] = [pair for pair in read_pairs(mixed.data) if pair.method == "given"]
    assert (pairs_read.query, pairs_read.chosen.text, pairs_read.rejected.text) == ("Red?", "Yes.", "No.")
    assert sum(mixed.skipped.values()) == 2
    [first] = [record.message for record in caplog.records if "the first such record" in record.message]
    assert "short.jsonl, line 2, the first such record: 'prompt' has half of a surrogate pair" in first


def test_number_of_short_pairs_alone_follows_long_pairs(pairs: Path) -> None:
    mixed = mixed_in(pairs, rows(20), ratio=1.5, alone=True)
    assert len(short_ids(mixed)) == len(list(read_pairs(mixed.data))) == 6
    assert mixed.metrics() == {"long/records": 0, "short/records": 6, "short/skipped": 0}


def test_answered_instructions_mixed_into_examples(tmp_path: Path) -> None:
    several = [SYSTEM, USER, GOOD, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "No."}]
    source_rows = [
        {"messages": several},
        {"messages": [USER]},
        {"prompt": "Blue?", "messages": "Sky."},
        {"messages": "x"},
    ]
    source, long = tmp_path / "chats.jsonl", tmp_path / "sft.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in source_rows), encoding="utf-8")
    first = Example(id="0", document_id="d", context="the town", query="who ?", answer="ben .")
    write_examples(long, [first, first.model_copy(update={"id": "1"})])
    config = ShortAnswers(source=str(source), sha256=pinned(source), answer="messages", ratio=2)
    mixed = mix_examples(config, long, out=tmp_path / "mixed.jsonl")
    pairs_read = list(read_examples(mixed.data))
    assert [row.id for row in pairs_read] == ["0", "1", "short/0", "short/2"]
    assert [(row.query, row.answer) for row in pairs_read[2:]] == [("Be kind.\n\nRed?", "Yes."), ("Blue?", "Sky.")]
    assert mixed.skipped == {
        "messages is a chat without an assistant's turn": 1,
        "prompt is missing; the row has 'messages'": 1,
    }
    built_in = mix_examples(ShortAnswers(source="builtin", ratio=0.5), long, out=tmp_path / "built_in.jsonl")
    assert [row.answer for row in read_examples(built_in.data)] == [
        "ben .",
        "ben .",
        "Dora Abbot was born in Birchley.",
    ]
    with pytest.raises(ConfigError, match=r"sft\.short\.sha256: sha256:[0-9a-f]{64}"):
        mix_examples(ShortAnswers(source=str(source)), long, out=tmp_path / "mixed.jsonl")


def test_columns_can_have_other_names(pairs: Path) -> None:
    row = {"instruction": "a", "win": "b", "lose": "c"}
    mixed = mixed_in(pairs, [row], prompt="instruction", chosen="win", rejected="lose")
    assert short_ids(mixed) == ["short/0"]


def test_unpinned_source_refused_with_checksum(pairs: Path, tmp_path: Path) -> None:
    source = tmp_path / "short.jsonl"
    source.write_text(json.dumps(rows(1)[0]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train\.short\.sha256: sha256:[0-9a-f]{64}"):
        mix_pairs(ShortPreferences(source=str(source)), pairs, out=tmp_path / "mixed.jsonl")
    with pytest.raises(ConfigError, match=r"set train\.short\.hub\.revision"):
        mix_pairs(ShortPreferences(source="hub:org/name"), pairs, out=tmp_path / "mixed.jsonl")
    other = ShortPreferences(source=str(source), sha256="sha256:" + "0" * 64)
    with pytest.raises(DataError, match=r"differs from train\.short\.sha256"):
        mix_pairs(other, pairs, out=tmp_path / "mixed.jsonl")


def test_short_prompt_is_question_only(tiny_policy: Path) -> None:
    text = load_tokenizer(PolicyConfig(base_model="unused"), tiny_policy)
    assert text.message("", "who ?") == "who ?"
    assert text.message("the town", "who ?") == "the town\n\nwho ?"


def test_both_sources_are_spread_over_length_groups() -> None:
    lengths = [40 + n for n in range(60)] + [8 + n % 4 for n in range(60)]  # long ones, then short ones
    order = LengthGroupedSampler(lengths, group=4, seed=0).epoch_order(0)
    assert sorted(order) == list(range(120))
    groups = [order[at : at + 4] for at in range(0, 120, 4)]
    assert sum(len({row < 60 for row in group}) > 1 for group in groups) <= 4  # at most one mixed group a part
    first_half = sum(row < 60 for row in order[:60])
    assert 15 < first_half < 45


@pytest.mark.parametrize("sharing", ["on", "off"])
def test_metrics_by_source_average_to_trainer_metrics(
    pairs: Path, tmp_path: Path, tiny_policy: Path, sharing: str
) -> None:
    mixed = mixed_in(pairs, rows(4))
    logged: list[dict[str, float]] = []
    train_dpo(
        FAST.model_copy(update={"prefix_sharing": sharing, "max_steps": 4}),
        PolicyConfig(base_model="unused"),
        sft_model=str(tiny_policy),
        pairs=mixed.data,
        out=tmp_path / "dpo",
        state=tmp_path / "state",
        log=lambda step, figures: logged.append(figures),
    )
    assert len(logged) == 4  # two updates an epoch, of four pairs each
    both = [row for row in logged if "long/rewards/margins" in row and "short/rewards/margins" in row]
    assert both
    for row in both:
        long, short = row["long/rewards/margins"], row["short/rewards/margins"]
        if abs(long - short) > 1e-4:  # of the four pairs, so many are long
            share = 4 * (row["rewards/margins"] - short) / (long - short)
            assert share == pytest.approx(round(share), abs=0.01)
            assert 1 <= round(share) <= 3
    assert logged[-1]["rewards/margins"] > 0.1


def test_without_short_pairs_there_are_no_metrics_by_source(pairs: Path, tmp_path: Path, tiny_policy: Path) -> None:
    logged: list[dict[str, float]] = []
    train_dpo(
        FAST.model_copy(update={"max_steps": 1}),
        PolicyConfig(base_model="unused"),
        sft_model=str(tiny_policy),
        pairs=pairs,
        out=tmp_path / "dpo",
        state=tmp_path / "state",
        log=lambda step, figures: logged.append(figures),
    )
    assert "rewards/margins" in logged[0]
    assert not [name for name in logged[0] if name.startswith(("long/", "short/"))]


def test_metrics_by_source_names() -> None:
    assert metrics_by_source([2.0, -1.0, 0.5], [0.0, 1.0, 1.0]) == {
        "long/rewards/margins": [2.0],
        "long/rewards/accuracies": [1.0],
        "short/rewards/margins": [-1.0, 0.5],
        "short/rewards/accuracies": [0.0, 1.0],
    }
