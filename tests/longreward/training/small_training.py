"""SFT and DPO on ten texts with a tiny model, for tests of checkpoints, resumption and logging.

In micro batches of two, two of them an update (the third of an epoch has one): three updates an epoch, nine in all,
with a checkpoint after the 4th and the 8th and metrics after the 3rd, 6th and 9th. The n-th text has 13 + n tokens.
"""

from itertools import starmap
from pathlib import Path

import pytest
from preference_pairs import make_pair
from safetensors.torch import load_file

from longreward.data.formats import write_examples, write_pairs
from longreward.models.config import PolicyConfig
from longreward.records import Example, PreferencePair
from longreward.training.config import LoraSettings
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.sft import SftConfig, train_sft

SETTINGS = {
    "learning_rate": 2e-3,
    "epochs": 3,
    "batch_size": 4,
    "micro_batch": 2,
    "bf16": False,
    "gradient_checkpointing": False,
    "warmup": 0,
    "log_steps": 3,
    "save_steps": 4,
}
LORA = LoraSettings(r=4, alpha=8, dropout=0.2)
TRAININGS = {
    "dpo": TrainConfig(**SETTINGS),
    "dpo-lora": TrainConfig(**SETTINGS, lora=LORA),
    "sft": SftConfig(**SETTINGS),
    "sft-lora": SftConfig(**SETTINGS, lora=LORA),
}
VOCABULARY = "the town is in north of river and anna was mayor when ben built bridge".split()  # noqa: SIM905


def vocabulary_pair(number: int, query: str = "who ?") -> PreferencePair:
    context = " ".join(VOCABULARY[: 2 + number]) + " ."
    rejected = " ".join(VOCABULARY[: 1 + number % 3])
    return make_pair(number, f"it is {VOCABULARY[number]} .", rejected, context=context, query=query)


def make_example(number: int, query: str = "who ?") -> Example:
    context = " ".join(VOCABULARY[: 2 + number]) + " ."
    return Example(
        id=str(number), document_id="1", context=context, query=query, answer=f"it is {VOCABULARY[number]} ."
    )


class Training:
    def __init__(self, kind: str, folder: Path, base: Path, questions: tuple[str, ...] = ("who ?",)):
        self.kind, self.base, self.out, self.state = kind, base, folder / "model", folder / "state"
        self.data, self.metrics = folder / "data.jsonl", []
        self.policy = PolicyConfig(base_model="unused")
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [(number, questions[number % len(questions)]) for number in range(10)]
        if kind.startswith("dpo"):
            write_pairs(self.data, starmap(vocabulary_pair, numbers))
        else:
            write_examples(self.data, starmap(make_example, numbers))

    def log(self, step, metrics):
        self.metrics.append((step, metrics))

    def run(self, log=None, **changes):
        config = TRAININGS[self.kind].model_copy(update=changes)
        arguments = {"out": self.out, "state": self.state, "log": log or self.log}
        policy = self.policy
        if self.kind.startswith("dpo"):
            return train_dpo(config, policy, sft_model=str(self.base), pairs=self.data, **arguments)
        return train_sft(config, policy, base=str(self.base), data=self.data, **arguments)

    def weights(self):
        return load_file(self.out / "model.safetensors")

    def checkpoint(self, step: int) -> Path:
        [checkpoint] = self.state.glob(f"*/checkpoint-{step}")
        return checkpoint


class TrainingStopped(Exception):
    pass


def stop_at(step: int):
    def log(current, metrics):
        if current == step:
            raise TrainingStopped

    return log


def train_until_second_checkpoint(kind, folder, base):
    training = Training(kind, folder, base)
    with pytest.raises(TrainingStopped):
        training.run(log=stop_at(9))
    return training, training.checkpoint(8)
