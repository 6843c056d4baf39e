"""Throughput of the judge client against a plain asyncio loop around `openai`.

    python benchmarks/judge_client.py [--requests 5000] [--concurrency 64] [--latency 0.2]

    openai loop   asyncio.Semaphore(64) around AsyncOpenAI.chat.completions.create; stores nothing
    longreward    the judge client with ledger, rate limiter and retries

Both send the same number of requests to a server process with a fixed latency and alternate in blocks, so that a busy
machine affects both. Exits with 1 if the ratio of their throughputs is below 0.98.
"""

import asyncio
import contextlib
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common import argument_parser

from longreward.judge import ChatRequest, Judge, JudgeConfig, open_judge
from longreward.reward.parsers import parse_rating

if TYPE_CHECKING:
    from openai import AsyncOpenAI

BLOCKS = 5
MIN_RATIO = 0.98
PROMPT = "Rate this answer. " + "The mill of Keld was built by Ann Lee in 1905. " * 60  # about 3,000 characters
MESSAGE = {"role": "assistant", "content": "It is to the point. " * 20 + "Rating: [[7]]"}
BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 800, "completion_tokens": 110, "total_tokens": 910},
    }
).encode()
HTTP_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Block(NamedTuple):
    """Duration of one block of requests."""

    seconds: float
    cpu_seconds: float


def main() -> int:
    """Print the measurements; return 1 if the ratio is too low."""
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="requests of each client")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds until the server replies")
    options = parser.parse_args()
    block_size = options.requests // BLOCKS
    with fixed_latency_server(options.latency) as url:
        blocks = asyncio.run(run_blocks(url, block_size, options.concurrency))
    requests = block_size * BLOCKS
    ideal = requests * options.latency / options.concurrency
    print(f"{requests} requests, {options.concurrency} concurrent, latency {options.latency:g} s: ideal {ideal:.2f} s")
    totals = {}
    for client, measured in blocks.items():
        totals[client] = sum(block.seconds for block in measured)
        cpu_ms = 1000 * sum(block.cpu_seconds for block in measured) / requests
        print(
            f"  {client:12} {totals[client]:6.2f} s  {requests / totals[client]:6.1f} requests/s  "
            f"{ideal / totals[client]:.3f} of the ideal  {cpu_ms:.2f} ms CPU per request"
        )
    ratio = totals["openai loop"] / totals["longreward"]
    paired = zip(blocks["openai loop"], blocks["longreward"], strict=True)
    ratios = [baseline.seconds / block.seconds for baseline, block in paired]
    print(
        f"ratio {ratio:.3f} (blocks: {min(ratios):.3f} to {max(ratios):.3f}, "
        f"median {statistics.median(ratios):.3f}; limit: {MIN_RATIO})"
    )
    return int(ratio < MIN_RATIO)


async def run_blocks(url: str, block_size: int, concurrency: int) -> dict[str, list[Block]]:
    """Run the blocks of both clients alternately, after a warm-up."""
    from openai import AsyncOpenAI

    config = JudgeConfig(kind="http", base_url=url, model="m", max_concurrency=concurrency)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            AsyncOpenAI(base_url=url, api_key="none") as openai,
            open_judge(config, ledger=Path(folder) / "ledger.sqlite") as judge,
        ):
            clients: dict[str, Callable[[str, int], Awaitable[None]]] = {
                "openai loop": lambda name, count: send_with_openai(openai, concurrency, name, count),
                "longreward": lambda name, count: send_with_judge(judge, name, count),
            }
            # Opens all connections, which both clients then keep.
            for send in clients.values():
                await send("warm-up", concurrency)
            blocks: dict[str, list[Block]] = {client: [] for client in clients}
            for number in range(BLOCKS):
                # The client that runs first changes with each block.
                for client in list(clients)[:: 1 if number % 2 == 0 else -1]:
                    started, cpu_started = time.perf_counter(), time.process_time()
                    await clients[client](f"block {number}", block_size)
                    blocks[client].append(Block(time.perf_counter() - started, time.process_time() - cpu_started))
            assert judge.metrics()["calls"] == block_size * BLOCKS + concurrency, "a request was lost or repeated"
    return blocks


async def send_with_openai(client: "AsyncOpenAI", concurrency: int, name: str, count: int) -> None:
    """Send requests as a hand-written loop does."""
    semaphore = asyncio.Semaphore(concurrency)

    async def send(number: int) -> None:
        async with semaphore:
            reply = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": f"{PROMPT} {name} openai {number}"}],
                temperature=0.01,
                max_tokens=512,
            )
        assert parse_rating(reply.choices[0].message.content or "") == 7

    await asyncio.gather(*(send(number) for number in range(count)))


async def send_with_judge(judge: Judge, name: str, count: int) -> None:
    """Send equally long requests with the judge client, which commits each reply to its ledger."""

    async def send(number: int) -> None:
        request = ChatRequest("helpfulness", {}, f"{PROMPT} {name} judge {number}", "hash", 512)
        assert (await judge.query(request, parse_rating)).value == 7

    await asyncio.gather(*(send(number) for number in range(count)))


class FixedReplyProtocol(asyncio.Protocol):
    """An HTTP/1.1 connection that sends the same reply to every request after a fixed latency.

    It reads only the length of the body: a web framework would need more CPU time than the clients leave.
    """

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        if separator and len(body) >= int(length[1] if length else 0):
            self._buffer = b""
            asyncio.get_running_loop().call_later(self._latency_s, self._reply)

    def _reply(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(HTTP_REPLY)


@contextlib.contextmanager
def fixed_latency_server(latency_s: float) -> Iterator[str]:
    """Serve fixed replies in another process; yield the base URL."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_server, args=(latency_s, sender), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def run_server(latency_s: float, port_sender: Connection) -> None:
    """Serve until the process is terminated; send the port when ready."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: FixedReplyProtocol(latency_s), "127.0.0.1", 0, backlog=1024)
        port_sender.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    sys.exit(main())
