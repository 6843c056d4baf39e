"""What a training tells of its padding."""

import pytest
from small_training import Training

from longreward.training import run


def test_padding_is_reported_with_grouping_and_without(tiny_policy, tmp_path):
    figures = Training("sft", tmp_path, tiny_policy).run(max_steps=1).figures()
    # Texts of 13 to 22 tokens: sorted, neighbours of a micro batch differ by one or two tokens.
    assert 0 < figures["padding"] < figures["padding_ungrouped"] < 0.3
    alone = Training("sft", tmp_path / "alone", tiny_policy).run(max_steps=1, micro_batch=1).figures()
    assert alone["padding"] == alone["padding_ungrouped"] == 0


@pytest.mark.parametrize(("kind", "sharing"), [("sft", None), ("dpo", "off"), ("dpo", "on")])
def test_the_padding_told_is_that_of_the_batches(tiny_policy, tmp_path, monkeypatch, kind, sharing):
    counted = []

    def count(trainer):
        for batch in trainer.get_train_dataloader():
            masked = batch.get("packed_pairs")
            if masked is None:
                counted.append((batch["input_ids"].numel(), int(batch["attention_mask"].sum())))
            else:
                counted.append((masked["input_ids"].numel(), sum(map(sum, masked["lengths"]))))
        return told(trainer)

    told = run.padding_shares
    monkeypatch.setattr(run, "padding_shares", count)
    changes = {} if sharing is None else {"prefix_sharing": sharing}
    report = Training(kind, tmp_path, tiny_policy).run(max_steps=1, **changes)
    passed, real = map(sum, zip(*counted, strict=True))
    assert report.padding == pytest.approx(1 - real / passed)
    assert report.padding > 0
