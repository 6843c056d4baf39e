import logging
from types import SimpleNamespace

import pytest
import torch
from small_training import Training, train_until_second_checkpoint

from longreward.training import exact_resume
from longreward.training.estimate import micro_batch
from longreward.training.estimate.micro_batch import log_time_estimate
from longreward.training.length_grouping import LengthGroupedSampler


@pytest.fixture
def measured(monkeypatch):
    """Even the smallest training is measured; the list has the rows of each measured micro batch."""
    measured_batches = []
    measure = micro_batch._micro_batch_seconds

    def record(trainer, model, batch):
        measured_batches.append(tuple(batch))
        return measure(trainer, model, batch)

    monkeypatch.setattr(micro_batch, "MIN_MICRO_BATCHES", 1)
    monkeypatch.setattr(micro_batch, "MAX_ROUNDS", 1)
    monkeypatch.setattr(micro_batch, "_micro_batch_seconds", record)
    return measured_batches


@pytest.mark.parametrize("kind", ["sft-lora", "dpo"])  # with dropout, and with a reference
def test_measuring_does_not_change_training(kind, measured, tiny_policy, tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        estimated, _ = train_until_second_checkpoint(kind, tmp_path / "stopped", tiny_policy)
        assert len(measured) == 3
        estimated.run()  # a resumed training is measured as well
    assert len(measured) == 6
    assert "9 steps of about" in caplog.text
    assert "1 steps of about" in caplog.text
    monkeypatch.setattr(micro_batch, "MIN_MICRO_BATCHES", 1_000)
    plain = Training(kind, tmp_path / "plain", tiny_policy)
    plain.run()
    assert len(measured) == 6
    assert estimated.metrics[-1] == plain.metrics[-1]
    result, expected = estimated.weights(), plain.weights()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_forward_and_backward_measured(measured, tiny_policy, tmp_path, monkeypatch):
    gradients = []
    passing = exact_resume.ExactResumeMixin.pass_micro_batch

    def record(self, model, inputs):
        passing(self, model, inputs)
        gradients.append(sum(weight.grad is not None for weight in model.parameters()))

    monkeypatch.setattr(exact_resume.ExactResumeMixin, "pass_micro_batch", record)
    Training("sft", tmp_path, tiny_policy).run()
    assert len(gradients) == 3
    assert min(gradients) > 10
    assert 9 in measured[0]  # the longest text


LENGTHS = [10, 70, 20, 100, 30, 40, 90, 25]


def padded(lengths):
    """Return the function that counts the tokens of padded rows with one text each."""
    return lambda rows: max(lengths[row] for row in rows) * len(rows)


def trainer_of(*, steps, done=0, accumulation=2, processes=1, micro=2):
    return SimpleNamespace(
        state=SimpleNamespace(max_steps=steps, global_step=done),
        args=SimpleNamespace(
            gradient_accumulation_steps=accumulation,
            per_device_train_batch_size=micro,
            world_size=processes,
            process_index=0,
            device=torch.device("cpu"),
        ),
        sampler=LengthGroupedSampler(LENGTHS, group=micro * processes, seed=3),
        is_deepspeed_enabled=False,
        _metrics={"train": {}},
        _total_train_tokens=0,
        accelerator=SimpleNamespace(
            gradient_state=SimpleNamespace(sync_gradients=True, _set_sync_gradients=lambda value: None)
        ),
    )


@pytest.mark.parametrize(("done", "expected_steps"), [(0, 80), (10, 70)])
def test_estimate_covers_remaining_micro_batches(done, expected_steps, monkeypatch, caplog):
    trainer, measured_batches = trainer_of(steps=80, done=done), []

    def seconds(trainer, model, batch):
        measured_batches.append(max(LENGTHS[row] for row in batch))
        return 0.001 * 2 * max(LENGTHS[row] for row in batch)  # a millisecond for each padded token

    monkeypatch.setattr(micro_batch, "_micro_batch_seconds", seconds)
    with caplog.at_level(logging.INFO):
        result = log_time_estimate(trainer, SimpleNamespace(zero_grad=lambda set_to_none: None), padded(LENGTHS))
    order = trainer.sampler.epoch_order(0)
    widths = [max(LENGTHS[row] for row in order[at : at + 2]) for at in range(0, 8, 2)]
    assert result == pytest.approx(expected_steps * 2 * sum(0.002 * width for width in widths) / 4)
    assert [measured_batches[0], *measured_batches[1::2]] == [100] * (
        1 + len(measured_batches) // 2
    )  # the first one warms up
    assert len(measured_batches) == 3  # one round, as measuring may cost a few of the 140 or 160 micro batches
    assert f"{expected_steps} steps of about 0." in caplog.text


def test_short_passes_averaged_within_budget(monkeypatch):
    passes = iter([0.3, 0.2, 9.0, 0.6, 9.0, 0.1, 9.0])  # the first one, then longest and median in turns
    monkeypatch.setattr(micro_batch, "_micro_batch_seconds", lambda trainer, model, batch: next(passes))
    model = SimpleNamespace(zero_grad=lambda set_to_none: None)
    result = log_time_estimate(trainer_of(steps=400), model, padded([50] * 8))  # all are as long as the longest
    assert result == pytest.approx(800 * 0.9 / 3)
    assert [*passes] == []


def test_long_pass_measured_once(monkeypatch):
    measured_batches = []
    monkeypatch.setattr(
        micro_batch, "_micro_batch_seconds", lambda trainer, model, batch: measured_batches.append(batch) or 5.0
    )
    model = SimpleNamespace(zero_grad=lambda set_to_none: None)
    assert log_time_estimate(trainer_of(steps=50), model, padded([50] * 8)) == 50 * 2 * 5.0
    assert len(measured_batches) == 2


@pytest.mark.parametrize(
    "changes", [{"steps": 49}, {"steps": 100, "done": 51}, {"steps": 99, "accumulation": 1}, {"steps": 99, "micro": 9}]
)
def test_short_trainings_not_measured(changes, monkeypatch):
    monkeypatch.setattr(micro_batch, "_micro_batch_seconds", lambda *args: pytest.fail("measured"))
    assert log_time_estimate(trainer_of(**changes), None, padded(LENGTHS)) is None


@pytest.mark.parametrize(("steps", "rounds"), [(75, 1), (125, 2), (200, 3), (1000, 5)])
def test_measuring_is_small_share_of_training(steps, rounds, monkeypatch):
    passes = []
    monkeypatch.setattr(micro_batch, "_micro_batch_seconds", lambda *args: passes.append(1) or 0.01)
    log_time_estimate(trainer_of(steps=steps), SimpleNamespace(zero_grad=lambda set_to_none: None), padded(LENGTHS))
    assert len(passes) == 1 + 2 * rounds


def test_seconds_interpolated_by_tokens(monkeypatch):
    trainer = trainer_of(steps=50, micro=1)
    seconds = {300: 4.0, 500: 10.0}  # the median of these lengths, and the longest
    lengths = [100, 100, 100, 300, 300, 400, 400, 500]
    monkeypatch.setattr(micro_batch, "_micro_batch_seconds", lambda trainer, model, batch: seconds[lengths[batch[0]]])
    result = log_time_estimate(trainer, SimpleNamespace(zero_grad=lambda set_to_none: None), padded(lengths))
    assert result == pytest.approx(50 * 2 * (3 * 4 / 3 + 2 * 4 + 2 * 7 + 10) / 8)
