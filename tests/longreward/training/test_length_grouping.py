import itertools
from collections import Counter

import pytest
from small_training import Training

from longreward.training import run
from longreward.training.length_grouping import LengthGroupedSampler, padding_share

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
    figures = Training("sft", tmp_path, tiny_policy).run(max_steps=1).metrics()
    # Texts of 13 to 22 tokens: sorted, neighbours of a micro batch differ by one or two tokens.
    ungrouped = Training("sft", tmp_path / "ungrouped", tiny_policy).run(max_steps=1, group_by_length=False).metrics()
    assert 0 < figures["padding"] < ungrouped["padding"] < 0.3
    alone = Training("sft", tmp_path / "alone", tiny_policy).run(max_steps=1, micro_batch=1).metrics()
    assert alone["padding"] == 0


@pytest.mark.parametrize(("kind", "sharing"), [("sft", None), ("dpo", "off"), ("dpo", "on")])
def test_reported_padding_equals_batches(tiny_policy, tmp_path, monkeypatch, kind, sharing):
    counted = []

    def count(trainer):
        for batch in trainer.get_train_dataloader():
            masked = batch.get("packed_pairs")
            if masked is None:
                counted.append((batch["input_ids"].numel(), int(batch["attention_mask"].sum())))
            else:
                counted.append((masked["input_ids"].numel(), sum(map(sum, masked["lengths"]))))
        return original(trainer)

    original = run.reported_padding
    monkeypatch.setattr(run, "reported_padding", count)
    changes = {} if sharing is None else {"prefix_sharing": sharing}
    report = Training(kind, tmp_path, tiny_policy).run(max_steps=1, **changes)
    passed, real = map(sum, zip(*counted, strict=True))
    assert report.padding == pytest.approx(1 - real / passed)
    assert report.padding > 0
