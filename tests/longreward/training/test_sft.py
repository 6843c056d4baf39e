from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_sizes import FAST_TRAINING
from trl.trainer import utils as trl_utils

from longreward.errors import ConfigError, DataError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.models.sampling import SampleConfig, sample
from longreward.records import Example
from longreward.training import trainers
from longreward.training.config import LoraSettings
from longreward.training.sft import SftConfig, train_sft

ROWS = [
    {
        "idx": "1",
        "context": "the town is north of the river .",
        "query": "where is the town ?",
        "answer": "it is north .",
    },
    {"idx": "2", "context": "anna is the mayor and ben was it .", "query": "who is mayor ?", "answer": "anna is ."},
    {"idx": "3", "context": "the bridge was built in 1901 .", "query": "when was it built ?", "answer": "in 1901 ."},
    {
        "idx": "4",
        "context": "cara opened the bridge in 1930 .",
        "query": "who opened it ?",
        "answer": "cara opened it .",
    },
]
FAST = SftConfig(
    learning_rate=0.02,
    max_steps=12,
    batch_size=4,
    micro_batch=2,
    **FAST_TRAINING,
    save_steps=4,
)


def settings(**changes):
    return FAST.model_copy(update=changes)


class Trained:
    """A training in a separate folder."""

    def __init__(self, folder: Path, base: Path, data: Path):
        self.folder, self.base, self.data, self.losses = folder, base, data, []
        self.on_loss = None
        self.out, self.state = folder / "models" / "sft", folder / "state"

    def run(self, config):
        return train_sft(
            config,
            PolicyConfig(base_model=str(self.base)),
            base=str(self.base),
            data=self.data,
            out=self.out,
            state=self.state,
            log=self.log,
        )

    def log(self, step, metrics):
        self.losses.append((step, metrics["loss"]))
        if self.on_loss is not None:
            self.on_loss(step, metrics["loss"])

    def weights(self, path=None):
        path = path or self.out
        return load_policy(PolicyConfig(base_model=str(path)), path).model.state_dict()


@pytest.fixture
def training(tmp_path, tiny_policy, write_lines):
    return Trained(tmp_path, tiny_policy, write_lines(tmp_path / "sft.jsonl", ROWS))


def test_training_changes_weights_and_lowers_loss(training):
    report = training.run(settings())
    assert [step for step, _ in training.losses] == list(range(1, 13))
    assert training.losses[-1][1] < training.losses[0][1] / 3
    before, after = training.weights(training.base), training.weights()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert (report.steps, report.resumed_from, report.lengths.count) == (12, 0, 4)
    assert report.metrics()["loss"] == training.losses[-1][1]


def test_first_loss_is_mean_over_all_answer_tokens(training):
    policy = load_policy(PolicyConfig(base_model=str(training.base)), training.base)
    summed, count = 0.0, 0
    for row in ROWS:
        prompt = policy.encoder.prompt_ids(row["context"], row["query"])
        answer = policy.encoder.completion_ids(row["answer"])
        with torch.no_grad():
            shares = policy.model(torch.tensor([prompt + answer])).logits[0].log_softmax(dim=-1)
        for place, token in enumerate(answer, start=len(prompt)):
            summed, count = summed - float(shares[place - 1, token]), count + 1
    training.run(settings(max_steps=1))
    assert training.losses[0][1] == pytest.approx(summed / count, rel=1e-4)


def test_trained_model_generates_answers(training):
    training.run(settings(max_steps=60))
    policy = load_policy(PolicyConfig(base_model=str(training.out)), training.out)
    examples = [Example(id=r["idx"], document_id=r["idx"], context=r["context"], query=r["query"]) for r in ROWS]
    greedy = sample(policy, examples, SampleConfig(n=1, temperature=0, max_new_tokens=8))
    assert [(a.text, a.finish_reason) for [a] in greedy] == [(row["answer"], "stop") for row in ROWS]


def test_only_model_folder_remains(training):
    training.run(settings())
    assert sorted(path.name for path in training.out.parent.iterdir()) == ["sft"]
    assert not list(training.state.rglob("checkpoint-*"))
    assert not (training.out / "adapter").exists()


def test_same_seed_trains_same_model(training, tmp_path):
    training.run(settings(max_steps=3))
    again = Trained(tmp_path / "again", training.base, training.data)
    again.run(settings(max_steps=3))
    assert training.losses == again.losses


def test_merged_adapter_equals_base_with_adapter(training):
    from peft import PeftModel

    training.run(settings(lora=LoraSettings(r=4, alpha=8)))
    base = load_policy(PolicyConfig(base_model=str(training.base)), training.base)
    merged = load_policy(PolicyConfig(base_model=str(training.out)), training.out)
    ids = torch.tensor([base.encoder.prompt_ids("the town is north .", "where is it ?")])
    with torch.no_grad():
        plain = base.model(ids).logits
        adapted = PeftModel.from_pretrained(base.model, training.out / "adapter")(ids).logits
        result = merged.model(ids).logits
    assert torch.allclose(result, adapted, atol=1e-4)
    assert not torch.allclose(result, plain, atol=1e-2)


class Interrupted(Exception):
    pass


@contextmanager
def recorded(updates, title, enabled=True):
    """Replace `show_progress`."""
    yield lambda done, total: updates.append((title, done, total))


def test_interrupted_training_resumes_from_last_complete_checkpoint(training, tmp_path, monkeypatch):
    def interrupt(step, loss):
        if step == 10:
            raise Interrupted

    training.on_loss = interrupt
    with pytest.raises(Interrupted):
        training.run(FAST)
    training.on_loss, training.losses = None, []
    assert not training.out.exists()
    [newest] = training.state.glob("*/checkpoint-8")
    partial_checkpoint = newest.with_name("checkpoint-10")  # as a kill in the middle of saving leaves it
    partial_checkpoint.mkdir()
    (partial_checkpoint / "model.safetensors").write_bytes(b"half")

    progress = []
    monkeypatch.setattr("longreward.training.run.show_progress", partial(recorded, progress))
    report = training.run(FAST)

    assert (report.resumed_from, report.steps) == (8, 12)
    assert progress == [("sft, steps", step, 12) for step in range(8, 13)]
    assert [step for step, _ in training.losses] == list(range(1, 13))  # the curve is whole
    whole = Trained(tmp_path / "whole", training.base, training.data)
    whole.run(FAST)
    assert training.losses == [pytest.approx(step_and_loss) for step_and_loss in whole.losses]
    for name, weight in whole.weights().items():
        assert torch.allclose(training.weights()[name], weight, atol=1e-5), name


def test_fine_tuned_model_linked(training, tmp_path):
    config = PolicyConfig(base_model="unused", sft_model=str(training.base))
    report = train_sft(
        FAST, config, base="unused", data=training.data, out=training.out, state=training.state, log=None
    )
    assert report.steps == 0
    passed, own = training.weights(), training.weights(training.base)
    assert all(torch.equal(passed[name], own[name]) for name in own)


def test_empty_data_refused(training):
    training.data.write_text("")
    with pytest.raises(DataError):
        training.run(FAST)


def test_micro_batch_must_divide_batch():
    with pytest.raises(ConfigError, match=r"micro_batch \(3\) must divide batch_size \(16\)"):
        SftConfig.parse({"batch_size": 16, "micro_batch": 3}, source="params.yaml: sft")


def test_default_learning_rate_equals_paper():
    assert SftConfig().learning_rate == 1e-5


@pytest.mark.parametrize(
    ("warmup", "steps", "updates"),
    [(0.03, 2, 0), (0.03, 33, 0), (0.03, 34, 2), (0.03, 57, 2), (0.5, 2, 1), (3, 2, 3), (0, 9, 0)],
)
def test_warmup_share_of_less_than_one_update_is_none(warmup, steps, updates) -> None:
    from longreward.training.run import count_warmup_updates

    assert count_warmup_updates(warmup, steps) == updates


def test_default_warmup_does_not_waste_only_update(training) -> None:
    training.run(settings(max_steps=1, warmup=0.03, scheduler="cosine"))
    before = training.weights(training.base)
    assert any(not torch.equal(weight, before[name]) for name, weight in training.weights().items())


def test_update_with_learning_rate_of_zero_reported(training, caplog) -> None:
    training.run(settings(max_steps=2, warmup=1, scheduler="cosine"))
    assert (
        "sft.warmup (1) warms up over 1 of 2 updates: the first update has a learning rate of 0 and changes nothing; "
        "lower it, or set it to 0"
    ) in caplog.text


def test_warmup_as_long_as_training_reported(training, caplog) -> None:
    training.run(settings(max_steps=2, warmup=2, scheduler="linear"))
    assert "sft.warmup (2) warms up over 2 of 2 updates: the learning rate never reaches its peak" in caplog.text


def test_logits_are_computed_at_answers_only_with_same_losses(training, tmp_path, monkeypatch):
    scored = []

    class Spy(trl_utils._ChunkedLogProbFunction):
        @staticmethod
        def forward(ctx, hidden, *args):
            scored.append(len(hidden))
            return original(ctx, hidden, *args)

    original = trl_utils._ChunkedLogProbFunction.forward
    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", Spy)
    training.run(settings(max_steps=3))
    policy = load_policy(PolicyConfig(base_model=str(training.base)), training.base)
    answers = sum(len(policy.encoder.completion_ids(row["answer"])) for row in ROWS)
    assert sum(scored[:2]) == answers  # an update: two micro batches
    # Without the block TRL scores every position again: nothing of it stays in the process.
    monkeypatch.setattr(trainers, "_score_answers_only", nullcontext)
    unmodified = Trained(tmp_path / "unmodified", training.base, training.data)
    unmodified.run(settings(max_steps=3))
    assert sum(scored[-2:]) > 2 * answers
    assert training.losses == [(step, pytest.approx(loss, rel=1e-4)) for step, loss in unmodified.losses]
