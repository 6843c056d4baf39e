"""Requests and seconds of `score.strategy: adaptive` against `full`, and whether both select the same pairs.

    LONGREWARD_REFERENCE=<folder> python benchmarks/adaptive_scoring.py [--prompts 60]

Scores the published example if the folder is configured, and the built-in corpus with the responses that `make run`
sampled (data/prepared, data/sampled), over HTTP with an offline judge that replies in 0.2 s, 32 requests at once.
The lower bound is what an oracle needs that knows every verdict in advance and only has to prove which responses are
best and worst. Published code and lower bound count identical requests each time. Exits with 1 if pairs differ.
"""

import asyncio
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from common import argument_parser, offline_judge_server
from scoring import CONCURRENCY, LATENCY_S, judge_config, read_published_example

from longreward.data.formats import read_examples, read_responses
from longreward.judge import open_judge
from longreward.pairs.methods import PairConfig
from longreward.pairs.selection import make_pairs
from longreward.records import DIMENSIONS, Example, Response, ScoredResponse
from longreward.reward import ScoreConfig, ScoredExample, open_scorer, score_examples

EXAMPLES = Path("data/prepared/preference.jsonl")
RESPONSES = Path("data/sampled/sampled_responses.jsonl")
SMALL_CHUNKS = {"evidence_chunk_tokens": 24, "extraction_chunk_tokens": 128}  # params.yaml, for the built-in corpus
Items = list[tuple[Example, list[Response]]]
Rank = tuple[float, int]
"""Reward and negative response number: of equal rewards the earlier response ranks higher."""


def main() -> int:
    """Print the measurements; return 1 if pairs differ."""
    parser = argument_parser(__doc__)
    parser.add_argument("--prompts", type=int, default=60, help="prompts of the built-in corpus")
    options = parser.parse_args()
    equal = True
    if "LONGREWARD_REFERENCE" in os.environ:
        equal &= compare("published example", [read_published_example()], ScoreConfig())
    if RESPONSES.exists():
        equal &= compare("built-in corpus", read_builtin_corpus(options.prompts), ScoreConfig(**SMALL_CHUNKS))
    return int(not equal)


def compare(name: str, items: Items, config: ScoreConfig) -> bool:
    """Print one table; return whether both strategies select the same pairs."""
    full, full_requests, full_seconds = score(items, config)
    adaptive, adaptive_requests, adaptive_seconds = score(items, config.model_copy(update={"strategy": "adaptive"}))
    extraction = sum(len(example.extraction.extracts) for example in full)
    published = extraction + sum(count_requests(scored) for example in full for scored in example.responses)
    lower_bound = extraction + sum(oracle_requests(example.responses) for example in full)
    same = pairs(items, full) == pairs(items, adaptive)

    def print_row(label: str, requests: int, seconds: str = "") -> None:
        print(f"  {label:16}{requests:>9,}{requests / published:>14.1%}{requests / full_requests:>10.1%}{seconds:>9}")

    print(f"{name}: {len(items)} prompts, {sum(len(responses) for _, responses in items)} responses")
    print(f"  {'':16}{'requests':>9}{'of published':>14}{'of full':>10}{'seconds':>9}")
    print_row("published code", published)
    print_row("full", full_requests, f"{full_seconds:.2f}")
    print_row("adaptive", adaptive_requests, f"{adaptive_seconds:.2f}")
    print_row("lower bound", lower_bound)
    print(f"  {extraction} requests are extraction, which both strategies need")
    print(f"  pairs: {'the same' if same else 'DIFFERENT'}")
    return same


def score(items: Items, config: ScoreConfig) -> tuple[list[ScoredExample], int, float]:
    """Score all items with a new judge server; return the scores, the number of requests and the seconds."""

    async def run(url: str) -> tuple[list[ScoredExample], int, float]:
        started = time.perf_counter()
        async with open_judge(judge_config(url, CONCURRENCY), ledger=None) as judge:
            scored = [example async for example in score_examples(judge, open_scorer(config), items)]
            return scored, int(judge.metrics()["calls"]), time.perf_counter() - started

    # A server of its own per strategy, so that neither profits from connections of the other.
    with offline_judge_server(LATENCY_S) as url:
        return asyncio.run(run(url))


def read_builtin_corpus(prompts: int) -> Items:
    """Return the first prompts that have sampled responses."""
    by_example: dict[str, list[Response]] = {}
    for response in read_responses(RESPONSES):
        by_example.setdefault(response.example_id, []).append(response)
    examples = (example for example in read_examples(EXAMPLES) if example.id in by_example)
    return [(example, by_example[example.id]) for example in itertools.islice(examples, prompts)]


def pairs(items: Items, scored: Iterable[ScoredExample]) -> list[object]:
    """Return the outcomes of pair selection."""
    responses = [response for example in scored for response in example.responses]
    return list(make_pairs(PairConfig(min_margin=0.25), [example for example, _ in items], responses))


def count_requests(scored: ScoredResponse) -> int:
    """Count the requests about one response: three ratings, its statements, and the support of each statement."""
    return 4 + len(scored.verdicts["faithfulness"].statements)


def oracle_requests(responses: Sequence[ScoredResponse]) -> int:
    """Return the fewest requests whose replies prove which response is best and which is worst."""
    ranks = {(scored.reward, -scored.response.number): scored for scored in responses if scored.reward is not None}
    if not ranks:
        return 0
    best, worst = max(ranks), min(ranks)
    return sum(
        count_requests(scored) if rank in (best, worst) else proof_requests(scored, best=best, worst=worst)
        for rank, scored in ranks.items()
    )


def proof_requests(scored: ScoredResponse, *, best: Rank, worst: Rank) -> int:
    """Return the fewest requests that prove that a response ranks between `best` and `worst`.

    Every dimension and, once the statements are known, every statement can be requested or left out; what is left out
    may have any value. Statements with equal support are interchangeable, so that counts per level suffice.
    """
    number = -scored.response.number
    statements = scored.verdicts["faithfulness"].statements
    levels = Counter(statement.support for statement in statements)
    weight = 10 / max(len(statements), 1)
    # Options for faithfulness: number of requests, lower and upper bound of the score.
    faithfulness = [(0, 0.0, 10.0)]
    for full, half, none in itertools.product(*(range(levels[level] + 1) for level in (1.0, 0.5, 0.0))):
        bounds = weight * (full + half / 2), 10 - weight * (none + half / 2)
        faithfulness.append((1 + full + half + none, *bounds))
    ratings = [scored.verdicts[dimension].score or 0.0 for dimension in DIMENSIONS if dimension != "faithfulness"]
    fewest = count_requests(scored)
    for requested in itertools.product((False, True), repeat=len(ratings)):
        rated = sum(itertools.compress(ratings, requested))
        unknown = 10.0 * requested.count(False)
        for requests, low, high in faithfulness:
            lower: Rank = ((rated + low) / len(DIMENSIONS), number)
            upper: Rank = ((rated + unknown + high) / len(DIMENSIONS), number)
            if worst < lower and upper < best:
                fewest = min(fewest, sum(requested) + requests)
    return fewest


if __name__ == "__main__":
    sys.exit(main())
