"""Does the engine keep a judge busy, and does memory stay flat? Against a bare `openai` asyncio loop in the same run.

    python benchmarks/judge_client.py                   # 5,000 calls each way, 64 at once, a judge of 0.2 s on loopback
    python benchmarks/judge_client.py --memory 100000   # that many calls of a scoring run, RSS every tenth of them

The bare loop is asyncio.Semaphore(64) around AsyncOpenAI.chat.completions.create, and keeps nothing; ours asks the
same questions through ledger, limiter and retries. The ways take turns, a block of the calls each, so that a machine's
moods meet both. Ends with 1 where the ratio is below 0.98 or memory grows.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.judge import ChatRequest, Judge, JudgeConfig, open_judge
from longreward.reward.parsers import parse_rating

if TYPE_CHECKING:
    from openai import AsyncOpenAI

BLOCKS = 5
BOUND = 0.98
PROMPT = "Rate this answer. " + "The mill of Keld was built by Ann Lee in 1905. " * 60  # about 3,000 characters


def main() -> int:
    """Prints the figures; 0 where the bound is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000, help="calls each way")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that the judge takes")
    parser.add_argument("--memory", type=int, metavar="CALLS", help="measure memory over so many calls instead")
    options = parser.parse_args()
    if options.memory:
        from judge_client_memory import report

        return report(options.memory)
    with judge_server(options.latency) as url, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(compare(url, Path(folder), options.calls, options.concurrency, options.latency))


async def compare(url: str, folder: Path, calls: int, concurrency: int, latency: float) -> int:
    """Both ways in turns; prints calls a second of each, processor time a call, and the ratio."""
    from openai import AsyncOpenAI

    config = JudgeConfig(kind="http", base_url=url, model="m", max_concurrency=concurrency)
    blocks: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    size = calls // BLOCKS
    async with AsyncOpenAI(base_url=url, api_key="none") as client, open_judge(config, ledger=folder / "l") as judge:
        await ask_bare(client, concurrency, "warm", concurrency)
        await ask_ours(judge, "warm", concurrency)
        for number in range(BLOCKS):
            for way in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
                started, worked = time.perf_counter(), time.process_time()
                if way == "bare":
                    await ask_bare(client, concurrency, f"block {number}", size)
                else:
                    await ask_ours(judge, f"block {number}", size)
                blocks[way].append((time.perf_counter() - started, time.process_time() - worked))
        assert judge.metrics()["calls"] == size * BLOCKS + concurrency, "a question was not asked, or asked twice"
    ideal = size * BLOCKS * latency / concurrency
    print(f"{size * BLOCKS} calls, {concurrency} at once, a judge of {latency:g} s: at best {ideal:.2f} s")
    for way, took in blocks.items():
        seconds, worked = (sum(each) for each in zip(*took, strict=True))
        print(
            f"  {way}  {seconds:6.2f} s  {size * BLOCKS / seconds:6.1f} calls/s  {ideal / seconds:.3f} of the best  "
            f"{1000 * worked / size / BLOCKS:.2f} ms of processor a call"
        )
    total = sum(seconds for seconds, _ in blocks["bare"]) / sum(seconds for seconds, _ in blocks["ours"])
    each = [bare / ours for (bare, _), (ours, _) in zip(blocks["bare"], blocks["ours"], strict=True)]
    print(
        f"ratio  {total:.3f} (blocks: {min(each):.3f} to {max(each):.3f}, median {statistics.median(each):.3f}; ",
        end="",
    )
    print(f"bound: {BOUND})")
    return int(total < BOUND)


async def ask_bare(client: "AsyncOpenAI", concurrency: int, name: str, count: int) -> None:
    """The loop that one writes by hand."""
    places = asyncio.Semaphore(concurrency)

    async def one(number: int) -> None:
        async with places:
            reply = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": f"{PROMPT} {name} bare {number}"}],
                temperature=0.01,
                max_tokens=512,
            )
        assert parse_rating(reply.choices[0].message.content or "") == 7

    await asyncio.gather(*(one(number) for number in range(count)))


async def ask_ours(judge: Judge, name: str, count: int) -> None:
    """The same questions of the judge, each answer in the ledger before it counts."""

    async def one(number: int) -> None:
        question = ChatRequest("helpfulness", {}, f"{PROMPT} {name} ours {number}", "hash", 512)
        assert (await judge.query(question, parse_rating)).value == 7

    await asyncio.gather(*(one(number) for number in range(count)))


@contextlib.contextmanager
def judge_server(latency: float) -> Iterator[str]:
    """The address of a server process that does nothing but wait and answer; it ends with the block."""
    command = [sys.executable, str(Path(__file__).with_name("judge_client_server.py")), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
