import itertools
import math
import random
from collections import Counter

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from small_training import Training

from longreward.training import run
from longreward.training.length_grouping import LengthGroupedSampler, PrefixGroupedSampler, padding_share
from longreward.training.prefix.row_prefixes import RowPrefixes
from longreward.training.prefix.text_tree import build_text_tree

# Two kinds of pairs, as in a set of long and short documents; 100 rows of 1,000 to 1,099 tokens, 100 of 100 to 199.
LENGTHS = [1000 + n if n % 2 else 100 + n for n in range(200)]


def batches(order, size):
    return [order[at : at + size] for at in range(0, len(order), size)]


def test_padding_share():
    texts = [(6,), (2,), (4,)]
    assert padding_share(texts, [0, 1, 2], micro_batch=1) == 0
    assert padding_share(texts, [0, 1, 2], micro_batch=2) == 4 / 16  # 6 6 | 4
    assert padding_share(texts, [1, 2, 0], micro_batch=2) == pytest.approx(2 / 14)  # 4 4 | 6
    # A pair of two texts is padded by itself too.
    assert padding_share([(6, 2), (4, 4)], [0, 1], micro_batch=1) == 4 / 20
    assert padding_share([(6, 2), (4, 4)], [0, 1], micro_batch=2) == 8 / 24


def test_grouping_reduces_padding():
    texts = [(length,) for length in LENGTHS]
    grouped = padding_share(texts, LengthGroupedSampler(LENGTHS, group=4, seed=0).epoch_order(0), micro_batch=4)
    ungrouped = padding_share(texts, LengthGroupedSampler(LENGTHS, group=1, seed=0).epoch_order(0), micro_batch=4)
    assert ungrouped > 0.3
    assert grouped < 0.1


def test_each_epoch_has_every_row_once_in_another_order():
    order = LengthGroupedSampler(LENGTHS, group=4, seed=0)
    first, second = order.epoch_order(0), order.epoch_order(1)
    assert Counter(first) == Counter(second) == Counter(range(200))
    assert first != second
    assert {frozenset(group) for group in batches(first, 4)} != {frozenset(group) for group in batches(second, 4)}


def test_order_depends_on_seed_and_epoch_only():
    order = LengthGroupedSampler(LENGTHS, group=4, seed=0)
    order.epoch = 3
    assert [*order] == LengthGroupedSampler(LENGTHS, group=4, seed=0).epoch_order(3)
    assert [*order] != LengthGroupedSampler(LENGTHS, group=4, seed=1).epoch_order(3)


def test_first_group_has_longest_row():
    for seed in range(5):
        assert 199 in LengthGroupedSampler(LENGTHS, group=4, seed=seed).epoch_order(0)[:4]
        assert LengthGroupedSampler(LENGTHS, group=1, seed=seed).epoch_order(0)[0] == 199


def test_updates_not_sorted_by_length():
    means = [
        sum(LENGTHS[row] for row in group) / 4
        for group in batches(LengthGroupedSampler(LENGTHS, group=4, seed=0).epoch_order(0), 4)
    ]
    descending = sum(a > b for a, b in itertools.pairwise(means))
    assert 15 < descending < 35  # of the 49 neighbours; sorted, it would be 49


def test_incomplete_group_comes_last():
    order = LengthGroupedSampler([5, 9, 1, 7, 3], group=2, seed=0).epoch_order(0)
    assert Counter(order) == Counter(range(5))
    assert sorted(order[:2]) == [1, 3]  # the longest two
    assert sorted(order[2:4]) == [0, 4]
    assert order[4] == 2


def test_one_row_and_no_rows():
    assert LengthGroupedSampler([5], group=4, seed=0).epoch_order(0) == [0]
    assert LengthGroupedSampler([], group=4, seed=0).epoch_order(0) == []


def test_report_has_padding(tiny_policy, tmp_path):
    def padding(name, **changes):
        return Training("sft", tmp_path / name, tiny_policy).run(max_steps=1, **changes).metrics()["padding"]

    # Texts of 13 to 22 tokens: sorted, neighbours of a micro batch differ by one or two tokens.
    grouped = padding("grouped", prefix_sharing="off")
    assert 0 < grouped < padding("ungrouped", prefix_sharing="off", group_by_length=False) < 0.3
    assert padding("alone", micro_batch=1) == 0
    assert padding("shared") == 0


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_reported_padding_equals_batches(tiny_policy, tmp_path, monkeypatch, kind):
    counted = []

    def count(trainer):
        for batch in trainer.get_train_dataloader():
            counted.append((batch["input_ids"].numel(), int(batch["attention_mask"].sum())))
        return original(trainer)

    original = run.reported_padding
    monkeypatch.setattr(run, "reported_padding", count)
    report = Training(kind, tmp_path, tiny_policy).run(max_steps=1, prefix_sharing="off")
    passed, real = map(sum, zip(*counted, strict=True))
    assert report.padding == pytest.approx(1 - real / passed)
    assert report.padding > 0


DOCUMENTS = [5, 1, 3, 8, 2, 2, 1, 6, 4]
"""The number of questions about each document."""


def document_rows() -> Dataset:
    """Return rows about documents of 40 to 120 tokens in random order, with the document's number as their first id."""
    rows = [
        {"input_ids": [document] * (40 + 10 * document) + [100 + question, 7, 8]}
        for document, questions in enumerate(DOCUMENTS)
        for question in range(questions)
    ]
    random.Random(0).shuffle(rows)
    return Dataset(pa.table({"input_ids": pa.array([row["input_ids"] for row in rows], pa.list_(pa.int32()))}))


def documents_of(rows, batch):
    return [rows[row]["input_ids"][0] for row in batch]


@pytest.mark.parametrize("micro_batch", [2, 3, 4, 8])
def test_rows_of_document_share_micro_batch(micro_batch):
    rows = document_rows()
    sampler = PrefixGroupedSampler(RowPrefixes.of_rows(rows), micro_batch=micro_batch, processes=1, seed=0)
    first, second = sampler.epoch_order(0), sampler.epoch_order(1)
    assert Counter(first) == Counter(second) == Counter(range(sum(DOCUMENTS)))
    assert first != second
    # A document in as few micro batches as possible; leftover rows may split a few.
    computed = sum(len(set(documents_of(rows, batch))) for batch in batches(first, micro_batch))
    fewest = sum(math.ceil(questions / micro_batch) for questions in DOCUMENTS)
    assert fewest <= computed <= fewest + 2
    ungrouped = LengthGroupedSampler([1] * sum(DOCUMENTS), group=1, seed=0).epoch_order(0)
    assert computed < sum(len(set(documents_of(rows, batch))) for batch in batches(ungrouped, micro_batch))


def test_first_micro_batch_has_most_tokens():
    rows = document_rows()
    prefixes = RowPrefixes.of_rows(rows)
    for seed in range(5):
        order = PrefixGroupedSampler(prefixes, micro_batch=4, processes=1, seed=seed).epoch_order(0)
        tokens = [prefixes.tokens(batch) for batch in batches(order, 4)]
        assert tokens[0] == max(tokens)


def test_order_of_prefixes_depends_on_seed_and_epoch_only():
    prefixes = RowPrefixes.of_rows(document_rows())
    sampler = PrefixGroupedSampler(prefixes, micro_batch=4, processes=1, seed=0)
    sampler.epoch = 3
    again = RowPrefixes.of_rows(document_rows())
    assert [*sampler] == PrefixGroupedSampler(again, micro_batch=4, processes=1, seed=0).epoch_order(3)
    assert [*sampler] != PrefixGroupedSampler(prefixes, micro_batch=4, processes=1, seed=1).epoch_order(3)


def test_processes_get_micro_batches_of_similar_cost():
    rows = Dataset.from_list([{"input_ids": [n] * (50 if n % 2 else 500) + [1]} for n in range(2, 162)])
    prefixes = RowPrefixes.of_rows(rows)
    order = PrefixGroupedSampler(prefixes, micro_batch=1, processes=2, seed=0).epoch_order(0)
    lengths = [len(rows[row]["input_ids"]) for row in order]
    assert sum(one != other for one, other in batches(lengths, 2)) <= 4


def test_tokens_equal_those_of_packed_rows():
    rows = document_rows()
    prefixes = RowPrefixes.of_rows(rows)
    for batch in ([0], [3, 9], [*range(8)], [*range(20)]):
        tree = build_text_tree([rows[row]["input_ids"] for row in batch])
        assert prefixes.tokens(batch) == len(tree.tokens)


def test_tokens_of_pairs_by_hand():
    pair = {"prompt_ids": [5] * 20 + [1], "chosen_ids": [2, 3], "rejected_ids": [4]}
    other = {"prompt_ids": [5] * 20 + [6, 7], "chosen_ids": [2], "rejected_ids": [4]}
    short = {"prompt_ids": [8], "chosen_ids": [2] * 9, "rejected_ids": [4] * 10}  # not worth sharing
    prefixes = RowPrefixes.of_rows(Dataset.from_list([pair, short, other]))
    assert prefixes.tokens([0]) == 21 + 2 + 1
    assert prefixes.tokens([0, 2]) == 20 + (1 + 2 + 1) + (2 + 1 + 1)
    assert prefixes.tokens([1, 0]) == 2 + 19 + 24
    assert [sorted(family) for family in prefixes.families] == [[0, 2], [1]]


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_training_on_shared_documents_equals_separate_texts(tiny_policy, tmp_path, kind):
    """The n-th of ten texts has the first 2 + n words of a document, so that micro batches share some of them."""
    shared, separate = (
        Training(kind, tmp_path / sharing, tiny_policy, questions=("who ?", "where is the bridge ?"))
        for sharing in ("on", "off")
    )
    shared.run(prefix_sharing="on", group_by_length=False)
    separate.run(prefix_sharing="off", group_by_length=False)
    assert [step for step, _ in shared.metrics] == [3, 6, 9]
    for (_, one), (_, other) in zip(shared.metrics, separate.metrics, strict=True):
        for name in ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-4), name
    trained = separate.weights()
    assert all(torch.allclose(weight, trained[name], atol=2e-4) for name, weight in shared.weights().items())
