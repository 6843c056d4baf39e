"""Make the embedded tiny base: `python -m longreward.builtin.pretrain --out models/tiny-base`.

A Llama of 0.76 million parameters learns to look facts up in documents of the corpus's grammar, none of which is in
the corpus. Documents get harder as soon as it finds most values in the easier ones. It runs on two CPU cores (20 to 30
minutes), goes on from its last checkpoint, and leaves a model that can be used at every checkpoint.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from longreward.builtin.pretraining_data import IDS, Lesson, Level, make_lesson
from longreward.builtin.tiny_model import init_lookup_heads, new_model
from longreward.builtin.tokenizer import PAD, save_tokenizer

LEVELS = (
    Level(people=3, facts_per_person=4, scenes=0, relations_per_theme=1),
    Level(people=5, facts_per_person=4, scenes=1, relations_per_theme=1),
    Level(people=5, facts_per_person=5, scenes=2, relations_per_theme=2),
    Level(people=6, facts_per_person=5, scenes=3, relations_per_theme=6),
)
"""The first levels are small but let all members share their relations: whoever ignores the name finds one value in
three. (Documents about one person taught it to ignore names, and it never learned them afterwards.) The last is the
corpus's."""
PASS = 0.85
"""Running share of values found at which the next level begins."""
TOKENS_PER_STEP = 6000
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_UP, COOL_DOWN = 50, 0.35
"""Steps of rising rate at the start, and the share of the steps in which it falls at the end."""


@dataclass(frozen=True)
class Progress:
    """How far a training is; together with weights and optimizers, all that going on needs."""

    step: int = 0
    level: int = 0
    found: float = 0.0
    rows: int = 0
    seconds: float = 0.0


def pretrain(out: Path, *, steps: int, seed: int, checkpoint: Path, every: int = 100) -> float:
    """Train for `steps` steps in all and write model and tokenizer to `out`; returns the held-out value accuracy.

    `checkpoint` is written every `every` steps, and where it exists already the training goes on from there.
    """
    model = new_model(seed)
    optimizers = _optimizers(model)
    progress = _resume(checkpoint, model, optimizers) if checkpoint.exists() else Progress()
    save_tokenizer(out)
    began = time.monotonic() - progress.seconds
    while progress.step < steps:
        lessons, rows = _next_lessons(seed, progress)
        found, loss = _step(model, optimizers, lessons, rate=_rate(progress.step, steps))
        progress = _advanced(replace(progress, rows=rows, seconds=time.monotonic() - began), found)
        if progress.step % 20 == 0:
            print(f"step {progress.step} level {progress.level} loss {loss:.3f} values found {found:.3f} "
                  f"running {progress.found:.3f} {progress.seconds:.0f} s", flush=True)  # fmt: skip
        if progress.step % every == 0 or progress.step == steps:
            model.save_pretrained(out)
            _keep(checkpoint, model, optimizers, progress)
    init_lookup_heads(model)
    model.save_pretrained(out)
    return held_out_accuracy(model, LEVELS[-1])


def held_out_accuracy(model: LlamaForCausalLM, level: Level, *, documents: int = 64) -> float:
    """Value accuracy on documents that no training row holds."""
    lessons = [make_lesson(f"held-out {number}", level) for number in range(documents)]
    scores = []
    with torch.no_grad():
        for start in range(0, documents, 8):
            batch = lessons[start : start + 8]
            scores.append(value_accuracy(batch, model(input_ids=collate(batch)[0]).logits))
    return sum(scores) / len(scores)


def value_accuracy(lessons: list[Lesson], logits: torch.Tensor) -> float:
    """Share of the values told whose every token is the likeliest one, given what stands before."""
    guesses = logits.argmax(-1).tolist()
    found = [
        all(guesses[row][place - 1] == lesson.ids[place] for place in range(start, end))
        for row, lesson in enumerate(lessons)
        for start, end in lesson.values
    ]
    return sum(found) / len(found)


def collate(lessons: list[Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights [rows, tokens], padded on the right: a causal model needs no mask for that."""
    longest = max(len(lesson.ids) for lesson in lessons)
    ids = torch.full((len(lessons), longest), IDS[PAD])
    weights = torch.zeros(len(lessons), longest)
    for row, lesson in enumerate(lessons):
        ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
        weights[row, : len(lesson.ids)] = torch.tensor(lesson.weights)
    return ids, weights


def _next_lessons(seed: int, progress: Progress) -> tuple[list[Lesson], int]:
    """Rows for one step, and the number of rows made so far."""
    lessons: list[Lesson] = []
    rows = progress.rows
    while sum(len(lesson.ids) for lesson in lessons) < TOKENS_PER_STEP:
        # A quarter of the rows stays easier, so that what was learned there is not lost.
        level = max(progress.level - 1 - rows // 4 % 2, 0) if rows % 4 == 3 else progress.level
        lessons.append(make_lesson(f"base {seed} {rows}", LEVELS[level]))
        rows += 1
    return lessons, rows


def _step(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], lessons: list[Lesson], *, rate: float
) -> tuple[float, float]:
    """One update; returns the share of values found before it, and the weighted loss."""
    ids, weights = collate(lessons)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # 1.5 times as fast on the CPUs tried
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
    return value_accuracy(lessons, logits.detach()), loss.item()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARM_UP, max(0.02, (steps - step) / (COOL_DOWN * steps)))


def _advanced(progress: Progress, found: float) -> Progress:
    running = progress.found + 0.05 * (found - progress.found)
    progress = replace(progress, step=progress.step + 1, found=running)
    if running > PASS and progress.level + 1 < len(LEVELS):
        return replace(progress, level=progress.level + 1, found=0.0)
    return progress


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (retrieval is learned sooner than with AdamW alone), AdamW for all else."""
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        torch.optim.Muon([{"params": matrices, "initial_lr": MUON_RATE}], momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW([{"params": others, "initial_lr": ADAM_RATE}], betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _keep(
    checkpoint: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], progress: Progress
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    half_written = checkpoint.with_suffix(".tmp")
    state = {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
    torch.save({**state, "progress": vars(progress)}, half_written)
    os.replace(half_written, checkpoint)


def _resume(checkpoint: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> Progress:
    saved = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(saved["model"])
    for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return Progress(**saved["progress"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m longreward.builtin.pretrain", description="Make the tiny base.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model and its tokenizer")
    parser.add_argument("--checkpoint", type=Path, default=Path(".longreward/tiny-base.pt"), help="to go on from")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / ".probe").touch()  # now, and not after hours
        (arguments.out / ".probe").unlink()
    except OSError as error:
        sys.exit(f"{arguments.out} cannot be written: {error.strerror}; choose another place")
    accuracy = pretrain(arguments.out, steps=arguments.steps, seed=arguments.seed, checkpoint=arguments.checkpoint)
    print(f"held-out value accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
