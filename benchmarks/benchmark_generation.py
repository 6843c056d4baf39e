"""Generate answers to 80 two-turn questions in batches, against one conversation at a time.

    python benchmarks/benchmark_generation.py [--questions 80] [--max-new-tokens 256] [--model <folder>]

Each alternative answers all first turns, then all second turns after the model's own first answers, with greedy
decoding, as MT-Bench prescribes for half of its categories. Both alternate. Without `--model`, a randomly initialised
model with the architecture and tokenizer of the tiny default is used; most of its answers reach the token limit.
Prints the seconds of each round, their ratio, and how many answers differ.
"""

import asyncio
import random
import tempfile
import time
from pathlib import Path

from common import argument_parser

from longreward.benchmarks.chat_clients import LocalChatClient
from longreward.benchmarks.types import GenerationRequest, Message
from longreward.builtin.grammar import INTRODUCTIONS, SCENES
from longreward.builtin.tiny_model import new_model
from longreward.builtin.tokenizer import save_tokenizer
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_policy

BATCH_ROWS = {"one at a time": 1, "batched": 64}
Question = tuple[str, str]
"""Both turns of the user."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--questions", type=int, default=80)
    parser.add_argument("--max-new-tokens", type=int, default=256, help="limit per answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a model folder (default: a randomly initialised model)")
    options = parser.parse_args()
    policy = load_model(options.model) if options.model else random_model()
    questions = make_questions(options.questions)
    asyncio.run(generate_answers(policy, questions[:4], 8, batch_rows=4))  # warm-up: lazy imports and buffers
    seconds: dict[str, list[float]] = {name: [] for name in BATCH_ROWS}
    answers: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for name, batch_rows in BATCH_ROWS.items():
            started = time.perf_counter()
            answers[name] = asyncio.run(
                generate_answers(policy, questions, options.max_new_tokens, batch_rows=batch_rows)
            )
            seconds[name].append(time.perf_counter() - started)
    sequential, batched = answers.values()
    words = sum(len(text.split()) for text in batched) / len(batched)
    different = sum(a != b for a, b in zip(sequential, batched, strict=True))
    print(f"{len(questions)} questions of two turns, {words:.0f} words per answer")
    for name, rounds in seconds.items():
        print(f"  {name:14} {'  '.join(f'{duration:6.1f} s' for duration in rounds)}")
    speedup = min(seconds["one at a time"]) / min(seconds["batched"])
    print(f"  {speedup:.1f} times as fast; {different} of {len(batched)} answers differ")


async def generate_answers(
    policy: Policy, questions: list[Question], max_new_tokens: int, *, batch_rows: int
) -> list[str]:
    """Return the answers to all first turns, then those to all second turns."""
    client = LocalChatClient(policy, "tiny", batch_rows=batch_rows)
    first_requests = [
        GenerationRequest(f"{index}-1", (Message("user", turn),), 0.0, max_new_tokens)
        for index, (turn, _) in enumerate(questions)
    ]
    first_answers = [completion.text for completion in await client.generate(first_requests)]
    second_requests = []
    for index, (request, answer, (_, turn)) in enumerate(zip(first_requests, first_answers, questions, strict=True)):
        messages = (*request.messages, Message("assistant", answer), Message("user", turn))
        second_requests.append(GenerationRequest(f"{index}-2", messages, 0.0, max_new_tokens))
    return first_answers + [completion.text for completion in await client.generate(second_requests)]


def make_questions(count: int) -> list[Question]:
    """Return questions of 10 to 200 words from the vocabulary of the built-in corpus."""
    rng = random.Random(0)
    lines = [*INTRODUCTIONS, *SCENES]
    return [(" ".join(rng.choices(lines, k=rng.randint(1, 12))), rng.choice(lines)) for _ in range(count)]


def random_model() -> Policy:
    """Return a randomly initialised model with the architecture of the tiny default."""
    with tempfile.TemporaryDirectory() as folder:
        new_model(0).save_pretrained(folder)
        save_tokenizer(Path(folder))
        return load_model(Path(folder))


def load_model(folder: Path) -> Policy:
    return load_policy(PolicyConfig(base_model=str(folder), device="cpu"), folder)


if __name__ == "__main__":
    main()
