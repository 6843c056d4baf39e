"""Calls and seconds of `score.strategy: adaptive` against `full`, and whether both come to the same pairs.

    LONGREWARD_REFERENCE=<folder> python benchmarks/adaptive_scoring.py [--prompts 60]

On the published example, ten responses, where the folder is given, and on the built-in corpus with the answers that
`make run` sampled (data/prepared, data/sampled): over HTTP against a server with the offline judge, 32 calls at once.
"Knowing all" is what somebody would ask who knew every verdict beforehand and had only to prove best and worst: the
bounds of a response in between must be narrowed so far, whoever asks. It counts equal questions each time. Ends with 1
where a pair differs.
"""

import argparse
import asyncio
import itertools
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from scoring import CONCURRENCY, judge_config, read_example, serve_judge

from longreward.data.formats import read_examples, read_responses
from longreward.judge import open_judge
from longreward.pairs.methods import PairConfig
from longreward.pairs.selection import make_pairs
from longreward.records import DIMENSIONS, Example, Response, ScoredResponse
from longreward.reward import ScoreConfig, ScoredExample, score_examples

Items = list[tuple[Example, list[Response]]]
SMALL = {"evidence_chunk_tokens": 24, "extraction_chunk_tokens": 128}  # as params.yaml has it for the built-in corpus


def main() -> int:
    """Prints the figures; 0 where all pairs are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60, help="prompts of the built-in corpus")
    options = parser.parse_args()
    equal = True
    if "LONGREWARD_REFERENCE" in os.environ:
        published = [read_example(Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward")]
        equal &= compare("the published example", published, ScoreConfig())
    if Path("data/sampled/sampled_responses.jsonl").exists():
        equal &= compare("the built-in corpus", builtin(options.prompts), ScoreConfig.model_validate(SMALL))
    return int(not equal)


def compare(name: str, items: Items, config: ScoreConfig) -> bool:
    """Prints one table; whether the pairs are the same."""
    with serve_judge() as url:
        full, calls, seconds = asyncio.run(score(url, items, config))
    with serve_judge() as url:
        adaptive, fewer, longer = asyncio.run(score(url, items, config.model_copy(update={"strategy": "adaptive"})))
    parts = sum(len(one.extraction.extracts) for one in full)
    each = parts + sum(questions(card) for one in full for card in one.responses)
    least = parts + sum(knowing_all(one.responses) for one in full)
    same = pairs(items, full) == pairs(items, adaptive)
    print(f"{name}: {len(items)} prompts, {sum(len(responses) for _, responses in items)} responses")
    print(f"  published    {each:6} calls that its code would make: a part, and 4 and the statements of each response")
    print(f"  full         {calls:6} calls {seconds:7.2f} s: {calls / each:.1%} of the published code's")
    print(f"  adaptive     {fewer:6} calls {longer:7.2f} s: {fewer / calls:.1%} of full's, {fewer / each:.1%} of those")
    print(f"  knowing all  {least / each:.1%} of the calls at least; {parts} calls are extraction, which both need")
    print(f"  pairs        {'the same' if same else 'DIFFERENT'}")
    return same


async def score(url: str, items: Items, config: ScoreConfig) -> tuple[list[ScoredExample], int, float]:
    """The scores, the calls that they took and the seconds."""
    started = time.perf_counter()
    async with open_judge(judge_config(url, CONCURRENCY), ledger=None) as judge:
        scored = [one async for one in score_examples(judge, config, items)]
        return scored, int(judge.metrics()["calls"]), time.perf_counter() - started


def builtin(prompts: int) -> Items:
    """The first prompts with their sampled answers."""
    groups: dict[str, list[Response]] = {}
    for response in read_responses(Path("data/sampled/sampled_responses.jsonl")):
        groups.setdefault(response.example_id, []).append(response)
    examples = (one for one in read_examples(Path("data/prepared/preference.jsonl")) if one.id in groups)
    return [(example, groups[example.id]) for example in itertools.islice(examples, prompts)]


def pairs(items: Items, scored: Iterable[ScoredExample]) -> list[object]:
    responses = [one for example in scored for one in example.responses]
    return list(make_pairs(PairConfig(min_margin=0.25), [example for example, _ in items], responses))


def questions(card: ScoredResponse) -> int:
    """What the full strategy asks about one response."""
    return 4 + len(card.verdicts["faithfulness"].statements)


def knowing_all(cards: Sequence[ScoredResponse]) -> int:
    """The fewest questions whose answers prove which response is best and which is worst."""
    ranks = {(card.reward, -card.response.number): card for card in cards if card.reward is not None}
    best, worst = max(ranks, default=(0.0, 0)), min(ranks, default=(0.0, 0))
    return sum(
        questions(ranks[rank]) if rank in (best, worst) else _proof(rank, ranks[rank], best, worst) for rank in ranks
    )


def _proof(rank: tuple[float, int], card: ScoredResponse, best: tuple[float, int], worst: tuple[float, int]) -> int:
    """The fewest questions that keep one response's bounds below `best` and above `worst`."""
    supports = [statement.support for statement in card.verdicts["faithfulness"].statements]
    full, half, none = (supports.count(level) for level in (1.0, 0.5, 0.0))
    ratings = [card.verdicts[d].score or 0.0 for d in DIMENSIONS if d != "faithfulness"]
    fewest = questions(card)
    for chosen in itertools.product((False, True), repeat=len(ratings)):
        asked = sum(chosen)
        low = sum(itertools.compress(ratings, chosen))
        high = low + 10 * (len(ratings) - asked)
        if _between(low, high + 10, rank, best, worst):
            fewest = min(fewest, asked)
        for halves, fulls in itertools.product(range(half + 1), range(full + 1)):
            size = 10 / max(len(supports), 1)
            lowest = low + size * (fulls + halves / 2)
            if not _between(lowest, lowest, rank, (math.inf, 0), worst):
                continue
            for nones in range(none + 1):
                if _between(lowest, high + 10 - size * (nones + halves / 2), rank, best, worst):
                    fewest = min(fewest, asked + 1 + halves + fulls + nones)
                    break
    return fewest


def _between(
    low: float, high: float, rank: tuple[float, int], best: tuple[float, int], worst: tuple[float, int]
) -> bool:
    return (high / len(DIMENSIONS), rank[1]) < best and (low / len(DIMENSIONS), rank[1]) > worst


if __name__ == "__main__":
    sys.exit(main())
