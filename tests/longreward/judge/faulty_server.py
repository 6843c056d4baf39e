"""The offline judge as a server process that injects faults into a given share of its requests.

    python faulty_server.py --rate 0.3 --latency 0.01      # prints its base URL

`GET /stats` returns the number of requests, of distinct requests and of faults of each kind. The fault is a function of
the request and of how often it was sent, so that runs are reproducible.
"""

import argparse
import asyncio
import hashlib
import json
import random
from collections import Counter
from typing import Any

from longreward.judge.prompts import load_prompts
from longreward.offline_judge_server import reply_text

NOTICE = "The response was filtered due to the prompt triggering our content management policy."
KINDS = (
    *("429", "429-after", "500", "502-html", "503", "dropped", "dropped-in-body", "slow", "dripping"),
    *("empty", "null", "no-choices", "error-in-200", "truncated", "garbage", "notice-finish", "notice-text"),
    *("notice-400", "not-json"),
)
# As the first reply, these would make a client stop, because the address seems to be wrong.
PROTOCOL_ERRORS = ("no-choices", "not-json")
FIRST_REQUESTS = 32  # twice the concurrency of the clients


class FaultyServer:
    def __init__(self, rate: float, latency: float, kinds: tuple[str, ...]) -> None:
        self._rate, self._latency, self._kinds = rate, latency, kinds
        self._prompts = load_prompts()
        self._requests: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._client_requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reply to the requests of one connection until the client closes it."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line]
                body = await reader.readexactly(int(lengths[0]) if lengths else 0)
                if head.startswith(b"GET /stats"):
                    content = {
                        "requests": self._requests.total(),
                        "distinct": len(self._requests),
                        "faults": self._faults,
                    }
                    self._client_requests = 0  # the next run is another client
                    await self._send(writer, 200, json.dumps(content).encode())
                elif not await self._complete(writer, json.loads(body)):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _complete(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> bool:
        prompt = str(request["messages"][-1]["content"])
        key = hashlib.sha256(f"{prompt}{request.get('temperature')}".encode()).hexdigest()
        self._requests[key] += 1
        chance = random.Random(f"{key} {self._requests[key]}")
        kind = chance.choice(self._kinds) if chance.random() < self._rate else "none"
        self._client_requests += 1
        if kind in PROTOCOL_ERRORS and self._client_requests <= FIRST_REQUESTS:
            kind = "none"
        await asyncio.sleep(self._latency)
        text = reply_text(self._prompts, prompt)
        if kind == "none":
            return await self._send(writer, 200, completion(text))
        self._faults[kind] += 1
        return await self._fault(writer, kind, text)

    async def _fault(self, writer: asyncio.StreamWriter, kind: str, text: str) -> bool:
        replies = {
            "429": (429, b'{"error": {"message": "slow down"}}'),
            "500": (500, b'{"error": {"message": "oops"}}'),
            "502-html": (502, b"<html><h1>Bad Gateway</h1></html>"),
            "503": (503, b'{"error": "overloaded"}'),
            "empty": (200, completion("")),
            "null": (200, completion(None)),
            "no-choices": (200, b'{"choices": []}'),
            "error-in-200": (200, b'{"error": {"message": "upstream", "code": 502}}'),
            "truncated": (200, completion(text[: len(text) // 2], "length")),
            "garbage": (200, completion("\x00\ufffd]] [[ 鹭 <statement [[eleven")),
            "notice-finish": (200, completion(NOTICE, "content_filter")),
            "notice-text": (200, completion(NOTICE)),
            "notice-400": (400, b'{"error": {"message": "filtered", "code": "content_filter"}}'),
            "not-json": (200, b'{"choices": [{"mess'),
        }
        if kind in replies:
            return await self._send(writer, *replies[kind])
        if kind == "429-after":
            return await self._send(writer, 429, b'{"error": {"message": "later"}}', "retry-after: 0.05\r\n")
        body = completion(text)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        if kind == "dropped-in-body":
            writer.write(head + body[: len(body) // 2])
            await writer.drain()
        if kind.startswith("dropped"):
            return False
        step, pause = (len(body), 6.0) if kind == "slow" else (len(body) // 5 + 1, 0.02)
        writer.write(head)
        for start in range(0, len(body), step):
            await asyncio.sleep(pause)
            writer.write(body[start : start + step])
            await writer.drain()
        return True

    async def _send(self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> bool:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return True


def completion(content: str | None, finish: str = "stop") -> bytes:
    """Make a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    ).encode()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    options = parser.parse_args()
    faulty = FaultyServer(options.rate, options.latency, tuple(options.kinds))
    server = await asyncio.start_server(faulty.serve, "127.0.0.1", 0, limit=2**24, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
