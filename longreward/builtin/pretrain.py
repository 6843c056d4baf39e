"""Pre-train the tiny base model: `python -m longreward.builtin.pretrain --out models/tiny-base`.

A Llama of 0.76 million parameters learns to look up facts in documents of the corpus's grammar, none of which is in the
corpus. A training sequence is a document, followed by what it says, as questions with answers and as plain sentences:

    <|begin|> document ¶ Mara Voss was born in Kelden. ¶ Where did Ivo Lang settle? Ivo Lang settled in Tarn. ¶ …

A value can be predicted only by looking it up in the document, so values carry most of the loss: one sequence trains
retrieval about thirty times. Questions are plain text without the roles of the chat template, which only SFT teaches.
The documents get harder as soon as the model finds most values in the easier ones. Training takes 20 to 30 minutes on
two CPU cores, resumes from its last checkpoint, and leaves a usable model at every checkpoint.
"""

import argparse
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from longreward.builtin.documents import make_document, sample_value
from longreward.builtin.grammar import FABRICATED_RELATIONS, RELATIONS, Fact
from longreward.builtin.questions import FACTS_PER_QUESTION, format_question
from longreward.builtin.tiny_model import init_lookup_heads, new_model
from longreward.builtin.tokenizer import BEGIN, PAD, TOKEN_IDS, WORD_PATTERN, save_tokenizer

TEXT_WEIGHT, WORDING_WEIGHT, VALUE_WEIGHT = 0.03, 0.3, 1.0
"""Weights in the loss of unpredictable text, of an answer's own words, and of a value to look up."""
FABRICATED_SHARE = 0.1
"""Share of the sentences that follow a fabricated one, so that the base has seen the words of the faulty answers."""
QUESTION_SHARE = 0.6
"""Share of the steps of a sequence that are questions with answers instead of plain sentences."""


@dataclass(frozen=True)
class Difficulty:
    """How hard the documents of a sequence are: the parameters of `make_document`."""

    people: int
    facts_per_person: int
    scenes: int
    relations_per_theme: int


# The first levels are small, but all members share their relations, so that a model that ignores the name finds one
# value in three. Documents about a single person taught it to ignore names, which it did not unlearn. The last level
# has the corpus's parameters.
LEVELS = (
    Difficulty(people=3, facts_per_person=4, scenes=0, relations_per_theme=1),
    Difficulty(people=5, facts_per_person=4, scenes=1, relations_per_theme=1),
    Difficulty(people=5, facts_per_person=5, scenes=2, relations_per_theme=2),
    Difficulty(people=6, facts_per_person=5, scenes=3, relations_per_theme=6),
)
LEVEL_UP_ACCURACY = 0.85
"""The running value accuracy at which the next level begins."""
TOKENS_PER_STEP = 6000
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_UP, COOL_DOWN = 50, 0.35
"""Steps of rising learning rate at the start, and the share of the steps in which it falls at the end."""


@dataclass(frozen=True)
class TrainingSequence:
    """Token ids, the weight of each as a prediction target, and the span of each fact's value."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    values: tuple[tuple[int, int], ...]


def make_training_sequence(document_id: str, level: Difficulty) -> TrainingSequence:
    """Return the sequence of a document: each fact once, in an answer to a question or in a plain sentence."""
    rng = random.Random(f"longreward lesson {document_id}")
    document = make_document(document_id, **asdict(level))
    facts = rng.sample(document.facts, len(document.facts))
    builder = _SequenceBuilder()
    builder.add_text(BEGIN, 0.0)
    builder.add_text(document.text, TEXT_WEIGHT)
    while facts:
        builder.add_text("\n\n", WORDING_WEIGHT)
        if rng.random() < FABRICATED_SHARE:
            relation = rng.choice(FABRICATED_RELATIONS)
            fabricated = Fact(rng.choice(document.people), relation, sample_value(rng, relation))
            builder.add_facts([fabricated], wording=TEXT_WEIGHT, value=TEXT_WEIGHT)
            builder.add_text("\n\n", WORDING_WEIGHT)
        if rng.random() < QUESTION_SHARE:
            size = rng.choices(list(FACTS_PER_QUESTION), weights=list(FACTS_PER_QUESTION.values()))[0]
            builder.add_text(format_question(facts[:size]), TEXT_WEIGHT)
            builder.add_facts(facts[:size], wording=WORDING_WEIGHT)
        else:
            size = 1
            builder.add_facts(facts[:size], wording=TEXT_WEIGHT)
        facts = facts[size:]
    return TrainingSequence(tuple(builder.ids), tuple(builder.weights), tuple(builder.values))


class _SequenceBuilder:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.values: list[tuple[int, int]] = []

    def add_text(self, text: str, weight: float) -> None:
        words = [text] if text in TOKEN_IDS else re.findall(WORD_PATTERN, text)
        self.ids += [TOKEN_IDS[word] for word in words]
        self.weights += [weight] * len(words)

    def add_facts(self, facts: Sequence[Fact], *, wording: float, value: float = VALUE_WEIGHT) -> None:
        for fact in facts:
            relation = RELATIONS[fact.relation]
            self.add_text(fact.subject, wording)
            self.add_text(relation.cue, wording)
            start = len(self.ids)
            self.add_text(fact.value, value)
            if value == VALUE_WEIGHT:
                self.values.append((start, len(self.ids)))
            self.add_text(relation.unit + ".", WORDING_WEIGHT)


@dataclass
class Progress:
    """The position of a training; with the weights and optimizer states, all that is needed to resume."""

    step: int = 0
    level: int = 0
    accuracy: float = 0.0
    """The running value accuracy at this level."""
    sequences: int = 0
    seconds: float = 0.0


def pretrain(out: Path, *, steps: int, seed: int, checkpoint: Path, every: int = 100) -> float:
    """Train for `steps` steps in total, write model and tokenizer to `out` and return the held-out value accuracy.

    `checkpoint` is written every `every` steps; if it exists, training resumes from it.
    """
    model = new_model(seed)
    optimizers = _optimizers(model)
    progress = Progress()
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, optimizer_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        progress = Progress(**state["progress"])
    save_tokenizer(out)
    start = time.monotonic() - progress.seconds
    while progress.step < steps:
        batch: list[TrainingSequence] = []
        while sum(len(sequence.ids) for sequence in batch) < TOKENS_PER_STEP:
            # A quarter of the sequences stays easier, so that the model does not forget the lower levels.
            count = progress.sequences
            level = max(progress.level - 1 - count // 4 % 2, 0) if count % 4 == 3 else progress.level
            batch.append(make_training_sequence(f"base {seed} {count}", LEVELS[level]))
            progress.sequences += 1
        accuracy, loss = _step(model, optimizers, batch, rate=_learning_rate(progress.step, steps))
        progress.seconds = time.monotonic() - start
        progress.step += 1
        progress.accuracy += 0.05 * (accuracy - progress.accuracy)
        if progress.accuracy > LEVEL_UP_ACCURACY and progress.level + 1 < len(LEVELS):
            progress.level += 1
            progress.accuracy = 0.0
        if progress.step % 20 == 0:
            print(f"step {progress.step} level {progress.level} loss {loss:.3f} accuracy {accuracy:.3f} "
                  f"running {progress.accuracy:.3f} {progress.seconds:.0f} s", flush=True)  # fmt: skip
        if progress.step % every == 0 or progress.step == steps:
            model.save_pretrained(out)
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            temporary = checkpoint.with_suffix(".tmp")
            state = {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            torch.save({**state, "progress": vars(progress)}, temporary)
            os.replace(temporary, checkpoint)
    init_lookup_heads(model)
    model.save_pretrained(out)
    return held_out_accuracy(model, LEVELS[-1])


def held_out_accuracy(model: LlamaForCausalLM, level: Difficulty, *, documents: int = 64) -> float:
    """Return the value accuracy on documents that are in no training sequence."""
    sequences = [make_training_sequence(f"held-out {number}", level) for number in range(documents)]
    scores = []
    with torch.no_grad():
        for start in range(0, documents, 8):
            batch = sequences[start : start + 8]
            scores.append(value_accuracy(batch, model(input_ids=collate(batch)[0]).logits))
    return sum(scores) / len(scores)


def value_accuracy(sequences: list[TrainingSequence], logits: torch.Tensor) -> float:
    """Return the share of values whose every token is the most likely one after the tokens before it."""
    predictions = logits.argmax(-1).tolist()
    correct = [
        all(predictions[row][position - 1] == sequence.ids[position] for position in range(start, end))
        for row, sequence in enumerate(sequences)
        for start, end in sequence.values
    ]
    return sum(correct) / len(correct)


def collate(sequences: list[TrainingSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and weights [sequences, tokens], padded on the right: a causal model needs no mask for that."""
    longest = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), longest), TOKEN_IDS[PAD])
    weights = torch.zeros(len(sequences), longest)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        weights[row, : len(sequence.ids)] = torch.tensor(sequence.weights)
    return ids, weights


def _step(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], batch: list[TrainingSequence], *, rate: float
) -> tuple[float, float]:
    """Update the weights once; return the value accuracy before the update, and the weighted loss."""
    ids, weights = collate(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # 1.5 times as fast as float32 on the CPUs tried
        logits = model(input_ids=ids).logits
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    targets = weights[:, 1:].flatten()
    loss = (losses * targets).sum() / targets.sum()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return value_accuracy(batch, logits.detach()), loss.item()


def _learning_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARM_UP, max(0.02, (steps - step) / (COOL_DOWN * steps)))


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (the model learns retrieval sooner than with AdamW alone), AdamW for the rest."""
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    matrix_ids = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in matrix_ids]
    return [
        torch.optim.Muon([{"params": matrices, "initial_lr": MUON_RATE}], momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW([{"params": others, "initial_lr": ADAM_RATE}], betas=(0.9, 0.95), weight_decay=0.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m longreward.builtin.pretrain", description="Pre-train the tiny base."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model and its tokenizer")
    parser.add_argument("--checkpoint", type=Path, default=Path(".longreward/tiny-base.pt"), help="to resume from")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / ".probe").touch()  # fail now instead of after the first 100 steps
        (arguments.out / ".probe").unlink()
    except OSError as error:
        sys.exit(f"{arguments.out} cannot be written: {error.strerror}; choose another path")
    accuracy = pretrain(arguments.out, steps=arguments.steps, seed=arguments.seed, checkpoint=arguments.checkpoint)
    print(f"held-out value accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
