"""Memory and CPU time over a long scoring run.

    python benchmarks/judge_client_memory.py [--requests 100000]
    python benchmarks/judge_client_memory.py --requests 20000 --long-document 10000000

Scores prompts with documents of 30,000 characters and ten responses each, read from files as after sampling, with a
judge in the same process that replies at once. Prints RSS and CPU time per request after every tenth of the requests,
and at the end the size of the documents and prompts: memory would grow with them if documents, replies or tasks were
kept. Exits with 1 if memory grows.

`--long-document` adds a prompt with a document of so many characters in the middle of the run, and for every
tenth the longest time in which the event loop served no other request: CPU time of the process, since on a busy machine
it also waits for a core. The document's text, tokens and chunks stay in memory for as long as prompts may share them.
"""

import asyncio
import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from common import argument_parser

from longreward.data.formats import write_examples, write_responses
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, TokenUsage
from longreward.judge.ledger import Ledger
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, open_scorer, score_examples
from longreward.reward.score_files import ScoreReport, open_scored_files, read_scoring_items

# Ten responses with two ratings, statements, one support and completeness each, and two parts to extract from.
REQUESTS_PER_PROMPT = 52
SENTENCE = "The mill of Keld, number {}, was built by Ann Lee in the year of the flood. "
MAX_GROWTH_MB = 10.0
REPLIES = {
    "helpfulness": "On the point. Rating: [[8]]",
    "logicality": "No mistake. Rating: [[9]]",
    "completeness": "The mill is missing. Rating: [[6]]",
    "support": "In passage 1. Support: [[Fully supported]]",
    "extraction": "1. Ann Lee built the mill.",
}


class InstantModel:
    """A judge model that needs no memory of its own."""

    name = "instant"

    def __init__(self) -> None:
        self.requests = self.characters = 0

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests += 1
        self.characters += len(request.text)
        await asyncio.sleep(0)
        reply = REPLIES.get(request.template) or f"<statement>Statement {self.requests}.</statement>"
        return ChatReply(reply, usage=TokenUsage(1000, 100))

    async def close(self) -> None:
        pass


def main() -> int:
    """Print the measurements; return 1 if memory grows."""
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--long-document", type=int, default=0, metavar="CHARACTERS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory_mb = asyncio.run(score(Path(folder), options.requests, options.long_document))
    # Buffers and caches fill until the third tenth.
    growth = memory_mb[-1] - memory_mb[2]
    print(f"growth from the third tenth to the last: {growth:+.1f} MB (limit: {MAX_GROWTH_MB:g})")
    return int(growth > MAX_GROWTH_MB)


async def score(folder: Path, requests: int, long_document: int) -> list[float]:
    """Score generated files; return RSS in MB after each tenth of the requests."""
    prompts = requests // REQUESTS_PER_PROMPT + 1
    data, responses = folder / "data.jsonl", folder / "responses.jsonl"
    write_examples(data, make_examples(prompts, long_document))
    write_responses(responses, make_responses(prompts))
    model, memory_mb = InstantModel(), list[float]()
    files = {name: folder / f"{name}.jsonl" for name in ("complete", "unscored", "chunk_info")}
    config = JudgeConfig(max_concurrency=64)
    async with Judge.from_model(model, config, ledger=Ledger(folder / "ledger.sqlite")) as judge:
        with open_scored_files(**files, settings={}, report=ScoreReport()) as write:
            scoring = score_examples(
                judge, open_scorer(ScoreConfig()), read_scoring_items(data, responses), progress=None
            )
            started, blocked_ms = time.process_time(), list[float]()
            watch = asyncio.create_task(watch_event_loop(blocked_ms) if long_document else asyncio.sleep(0))
            async with contextlib.aclosing(scoring) as scored:
                async for example in scored:
                    write(example)
                    if model.requests >= (len(memory_mb) + 1) * requests // 10:
                        if not long_document:  # a collection would block the event loop
                            gc.collect()  # garbage that waits for a collection is no leak
                        memory_mb.append(psutil.Process().memory_info().rss / 2**20)
                        cpu_ms = 1000 * (time.process_time() - started) / model.requests
                        line = (
                            f"  {model.requests:>7,} requests  {memory_mb[-1]:6.1f} MB  {cpu_ms:.2f} ms CPU per request"
                        )
                        if long_document:
                            line += f"  event loop blocked for at most {max(blocked_ms):.0f} ms"
                            blocked_ms[:] = [0.0]
                        print(line, flush=True)
            watch.cancel()
    sizes = {path.name: path.stat().st_size / 2**20 for path in folder.iterdir()}
    print(
        f"documents {sizes['data.jsonl']:.0f} MB, prompts {model.characters / 2**20:,.0f} MB, "
        f"scored files {sizes['complete.jsonl'] + sizes['chunk_info.jsonl']:.0f} MB, "
        f"ledger {sizes['ledger.sqlite']:.0f} MB "
        f"({sizes['ledger.sqlite'] * 2**20 / model.requests:.0f} bytes per request)"
    )
    return memory_mb


async def watch_event_loop(blocked_ms: list[float]) -> None:
    """Keep in `blocked_ms` the longest CPU time between two iterations of the event loop."""
    blocked_ms.append(0.0)
    while True:
        started = time.process_time()
        await asyncio.sleep(0)
        blocked_ms[:] = [max(blocked_ms[0], 1000 * (time.process_time() - started))]


def make_examples(prompts: int, long_document: int) -> Iterator[Example]:
    for number in range(prompts):
        context = f"Document {number}. " + "".join(SENTENCE.format(line) for line in range(380))
        if long_document and number == prompts // 2:
            context = "".join(SENTENCE.format(line) for line in range(long_document // 78 + 1))[:long_document]
        yield Example(id=str(number), document_id=str(number), context=context, query=f"Who built mill {number}?")


def make_responses(prompts: int) -> Iterator[Response]:
    for number in range(prompts):
        for sample in range(10):
            text = f"Ann Lee built mill {number}, as response {sample} says. " * 20
            yield Response(
                id=f"{number}-{sample}", example_id=str(number), query=f"Who built mill {number}?", text=text
            )


if __name__ == "__main__":
    sys.exit(main())
