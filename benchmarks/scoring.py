"""Time to score the published example, ten responses, over HTTP with a judge that replies in 0.2 s.

    LONGREWARD_REFERENCE=<folder> python benchmarks/scoring.py

Compares with the ideal for 32 concurrent requests and with the order of requests in the published code: extraction
first, then ten responses in parallel, each with its requests in sequence. Exits with 1 if scoring takes more than a
second longer than the ideal, or more than 600 MB.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from common import argument_parser, offline_judge_server, peak_rss_mb, reference_dir

from longreward.judge import JudgeConfig, open_judge
from longreward.judge.prompts import load_prompts
from longreward.records import Example, Response
from longreward.retrieval import Bm25Retriever
from longreward.reward import ScoreConfig, Scorer
from longreward.reward.completeness import extract, extraction_requests
from longreward.reward.document import Document
from longreward.utils.token_spans import SimpleTokenizer

LATENCY_S = 0.2
CONCURRENCY = 32
LONGEST_CHAIN = 2  # dependent requests: statements then support, or extraction then completeness
MAX_OVERHEAD_S = 1.0
MAX_MEMORY_MB = 600


def main() -> int:
    """Print the measurements; return 1 if a limit is exceeded."""
    argument_parser(__doc__).parse_args()
    example, responses = read_published_example()
    import_seconds = import_libraries()
    with offline_judge_server(LATENCY_S) as url:
        seconds, metrics = asyncio.run(score_concurrently(url, example, responses))
        memory_mb = peak_rss_mb()
        published_seconds = asyncio.run(score_in_published_order(url, example, responses))
    requests = int(metrics["calls"])
    ideal = max(requests * LATENCY_S / CONCURRENCY, LONGEST_CHAIN * LATENCY_S)
    print(f"imports, not included   {import_seconds:.2f} s")
    print(f"requests                {requests}; {int(metrics['shared'])} identical ones shared")
    print(f"seconds                 {seconds:.2f}")
    bounds = f"{requests} x {LATENCY_S} / {CONCURRENCY}, {LONGEST_CHAIN} x {LATENCY_S}"
    print(f"ideal                   {ideal:.2f} = max({bounds})")
    print(f"above the ideal         {seconds - ideal:.2f} (limit: {MAX_OVERHEAD_S:g})")
    print(f"published order         {published_seconds:.2f}: {published_seconds / seconds:.1f} times as long")
    print(f"peak memory             {memory_mb:.0f} MB (limit: {MAX_MEMORY_MB})")
    return int(seconds - ideal >= MAX_OVERHEAD_S or memory_mb >= MAX_MEMORY_MB)


def import_libraries() -> float:
    """Import the libraries that are otherwise loaded on first use; return the seconds."""
    started = time.perf_counter()
    import bm25s  # noqa: F401
    import openai  # noqa: F401

    return time.perf_counter() - started


async def score_concurrently(url: str, example: Example, responses: list[Response]) -> tuple[float, dict[str, float]]:
    """Score all responses with the library; return the seconds and the metrics of the judge."""
    started = time.perf_counter()
    async with open_judge(judge_config(url, CONCURRENCY), ledger=None) as judge:
        scored = await Scorer(ScoreConfig()).score(judge, example, responses)
        seconds = time.perf_counter() - started
        assert all(response.complete for response in scored.responses)
        return seconds, judge.metrics()


async def score_in_published_order(url: str, example: Example, responses: list[Response]) -> float:
    """Extract first, then score the responses in parallel with one request at a time each; return the seconds."""
    config, prompts = ScoreConfig(), load_prompts()
    scorer = Scorer(config)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        document = Document(example.context, config, SimpleTokenizer(), Bm25Retriever())

        async def score(response: Response) -> None:
            async with open_judge(judge_config(url, 1), ledger=ledger) as judge:
                await scorer.score(judge, example, [response])  # reads the extraction from the ledger

        started = time.perf_counter()
        async with open_judge(judge_config(url, 1), ledger=ledger) as judge:
            requests = await extraction_requests(prompts, document, query=example.query)
            await extract(judge, prompts, requests, example_id=example.id, query=example.query)
        await asyncio.gather(*(score(response) for response in responses))
        return time.perf_counter() - started


def judge_config(url: str, concurrency: int) -> JudgeConfig:
    return JudgeConfig(kind="http", base_url=url, model="offline", max_concurrency=concurrency)


def read_published_example() -> tuple[Example, list[Response]]:
    """Read the example with its ten responses from the reference data."""
    folder = reference_dir("longreward")
    row = json.loads((folder / "sft.jsonl").read_text(encoding="utf-8"))
    example = Example(id=str(row["idx"]), document_id="0", context=row["context"], query=row["query"])
    rows = map(json.loads, (folder / "sampled_responses.jsonl").read_text(encoding="utf-8").splitlines())
    return example, [
        Response(id=row["idx"], example_id=example.id, query=row["query"], text=row["answer"]) for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
