"""Times the reward on the published example, ten responses, against a real HTTP server that answers in 0.2 s.

    LONGREWARD_REFERENCE=<folder> python benchmarks/scoring.py

Compares with the best that 32 calls at once allow, and with the published way: extraction first, then ten responses
side by side, each with its calls one after another. Ends with 1 where more than a second is lost to anything but the
judge, or 600 MB are exceeded.
"""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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
CHAIN = 2  # statements then support, or extraction then completeness


def main() -> int:
    """Prints the figures; 0 where all bounds are kept."""
    if "LONGREWARD_REFERENCE" not in os.environ:
        print("set LONGREWARD_REFERENCE to the folder of reference data", file=sys.stderr)
        return 2
    example, responses = read_example(Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward")
    start = start_process()
    with serve_judge() as url:
        seconds, figures = asyncio.run(score_at_once(url, example, responses))
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        one_by_one = asyncio.run(score_one_by_one(url, example, responses))
    calls = int(figures["calls"])
    ideal = max(calls * LATENCY_S / CONCURRENCY, CHAIN * LATENCY_S)
    print(f"process start           {start:.2f} s of imports, not counted below")
    print(f"calls                   {calls} ({int(figures['shared'])} equal ones in flight shared)")
    print(f"seconds                 {seconds:.2f}")
    print(f"  ideal                 {ideal:.2f} = max({calls} x {LATENCY_S} / {CONCURRENCY}, {CHAIN} x {LATENCY_S})")
    print(f"  over it               {seconds - ideal:.2f} (bound: 1)")
    print(f"  in the published way  {one_by_one:.2f}: {one_by_one / seconds:.1f} times as long")
    print(f"peak memory             {memory_mb:.0f} MB (bound: 600)")
    return int(seconds - ideal >= 1 or memory_mb >= 600)


def start_process() -> float:
    """Return the seconds to import libraries that are loaded on first use."""
    started = time.perf_counter()
    import bm25s  # noqa: F401
    import openai  # noqa: F401

    return time.perf_counter() - started


async def score_at_once(url: str, example: Example, responses: list[Response]) -> tuple[float, dict[str, float]]:
    """Return the seconds to score all responses as the library does, and the judge's metrics."""
    started = time.perf_counter()
    async with open_judge(judge_config(url, CONCURRENCY), ledger=None) as judge:
        scored = await Scorer(ScoreConfig()).score(judge, example, responses)
        seconds = time.perf_counter() - started
        assert all(response.complete for response in scored.responses)
        return seconds, judge.metrics()


async def score_one_by_one(url: str, example: Example, responses: list[Response]) -> float:
    """Return the seconds in the published order of calls: extraction, then a chain of calls per response."""
    config, prompts = ScoreConfig(), load_prompts()
    scorer = Scorer(config)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        document = Document(example.context, config, SimpleTokenizer(), Bm25Retriever())

        async def score(response: Response) -> None:
            async with open_judge(judge_config(url, 1), ledger=ledger) as judge:
                await scorer.score(judge, example, [response])  # finds the extraction in the ledger

        started = time.perf_counter()
        async with open_judge(judge_config(url, 1), ledger=ledger) as judge:
            requests = await extraction_requests(prompts, document, query=example.query)
            await extract(judge, prompts, requests, example_id=example.id, query=example.query)
        await asyncio.gather(*(score(response) for response in responses))
        return time.perf_counter() - started


def judge_config(url: str, concurrency: int) -> JudgeConfig:
    return JudgeConfig(kind="http", base_url=url, model="offline", max_concurrency=concurrency)


def read_example(folder: Path) -> tuple[Example, list[Response]]:
    row = json.loads((folder / "sft.jsonl").read_text(encoding="utf-8"))
    example = Example(id=str(row["idx"]), document_id="0", context=row["context"], query=row["query"])
    rows = [json.loads(line) for line in (folder / "sampled_responses.jsonl").read_text(encoding="utf-8").splitlines()]
    return example, [
        Response(id=row["idx"], example_id=example.id, query=row["query"], text=row["answer"]) for row in rows
    ]


@contextlib.contextmanager
def serve_judge() -> Iterator[str]:
    """The address of a server process with the offline judge; it ends with the block."""
    command = [sys.executable, "-m", "longreward.offline_judge_server", "--port", "0", "--latency", str(LATENCY_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
