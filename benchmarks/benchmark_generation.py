"""80 two-turn questions answered by the tiny default model: in batches against one conversation at a time.

    python benchmarks/benchmark_generation.py [--questions 80] [--new 256] [--model <folder>]

A fresh model of the tiny default's shape and tokenizer where no folder is given: most of its answers have all tokens.
Each way answers all first turns, then the second ones behind the model's own first answers, greedily, as MT-Bench asks
for half of its categories; the ways take turns. Prints seconds, their ratio, and how many answers differ.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = {"one at a time": 1, "batched": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=80)
    parser.add_argument("--new", type=int, default=256, help="most new tokens of an answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a folder with a model (default: a fresh one)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as folder:
        policy = _policy(options.model or _fresh(Path(folder)))
    questions = _questions(options.questions)
    asyncio.run(_answered(policy, questions[:4], 8, rows=4))  # warm
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    answers: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for way, rows in WAYS.items():
            started = time.perf_counter()
            answers[way] = asyncio.run(_answered(policy, questions, options.new, rows=rows))
            seconds[way].append(time.perf_counter() - started)
    alone, batched = (min(seconds[way]) for way in WAYS)
    words = sum(len(text.split()) for text in answers["batched"]) / len(answers["batched"])
    differ = sum(a != b for a, b in zip(*answers.values(), strict=True))
    print(f"{len(questions)} questions of two turns, answers of {words:.0f} words")
    for way, measured in seconds.items():
        print(f"  {way:14} {'  '.join(f'{each:6.1f} s' for each in measured)}")
    print(f"  {alone / batched:.1f} times as fast; {differ} of {len(answers['batched'])} answers differ")


async def _answered(policy: Any, questions: list[tuple[str, str]], new: int, *, rows: int) -> list[str]:
    """The answers to all first and all second turns."""
    from longreward.benchmarks.chat_clients import LocalChatClient
    from longreward.benchmarks.types import GenerationRequest, Message

    speaker = LocalChatClient(policy, "tiny", batch_rows=rows)
    first = [GenerationRequest(f"{i}-1", (Message("user", one),), 0.0, new) for i, (one, _) in enumerate(questions)]
    said = [each.text for each in await speaker.generate(first)]
    second = [
        GenerationRequest(f"{i}-2", (*ask.messages, Message("assistant", text), Message("user", two)), 0.0, new)
        for i, (ask, text, (_, two)) in enumerate(zip(first, said, questions, strict=True))
    ]
    return said + [each.text for each in await speaker.generate(second)]


def _questions(count: int) -> list[tuple[str, str]]:
    """Of the tiny vocabulary, 10 to 200 words: the documents of the built-in corpus are about these things."""
    from longreward.builtin.grammar import INTRODUCTIONS, SCENES

    draw = random.Random(0)
    lines = [*INTRODUCTIONS, *SCENES]
    return [(" ".join(draw.choices(lines, k=draw.randint(1, 12))), draw.choice(lines)) for _ in range(count)]


def _fresh(folder: Path) -> Path:
    from longreward.builtin.tiny_model import new_model
    from longreward.builtin.tokenizer import save_tokenizer

    new_model(0).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def _policy(folder: Path) -> Any:
    from longreward.models.config import PolicyConfig
    from longreward.models.policy import load_policy

    return load_policy(PolicyConfig(base_model=str(folder), device="cpu"), folder)


if __name__ == "__main__":
    main()
