"""The offline judge as a server process that does what servers do on bad days, at a given share of its calls.

    python faulty_server.py --rate 0.3 --latency 0.01      # prints its base URL

`GET /stats` tells how many requests came and about how many questions, how many met a fault of each kind, and how many
asked what had been answered well a while before. A fault is chosen by the question and how often it came, so that a run
can be repeated.
"""

import argparse
import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from typing import Any

from longreward.judge.prompts import load_prompts
from longreward.offline_judge_server import reply_text

NOTICE = "The response was filtered due to the prompt triggering our content management policy."
# Who has an answer for so long, and for so many requests of whomever, has kept it. Time alone would blame a process
# that a busy machine did not let run.
LATE_S, LATE_REQUESTS = 1.0, 20
KINDS = (
    *("429", "429-after", "500", "502-html", "503", "dropped", "dropped-in-body", "slow", "dripping"),
    *("empty", "null", "no-choices", "error-in-200", "truncated", "garbage", "notice-finish", "notice-text"),
    *("notice-400", "not-json"),
)
# Who is told this at first takes the address for another one's and stops, so it comes once a client has had answers.
UNLIKE_THE_PROTOCOL = ("no-choices", "not-json")
FIRST = 32  # twice what a client here has in flight


class Server:
    """One request a connection, or many."""

    def __init__(self, rate: float, latency: float, kinds: tuple[str, ...]) -> None:
        self._rate, self._latency, self._kinds = rate, latency, kinds
        self._prompts = load_prompts()
        self._came: Counter[str] = Counter()
        self._met: Counter[str] = Counter()
        self._answered: dict[str, tuple[float, int]] = {}  # when, and after how many requests
        self._late = 0
        self._begun = 0  # requests of this client

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers until the other side goes away."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
                )
                body = await reader.readexactly(int(length))
                if head.startswith(b"GET /stats"):
                    said: dict[str, Any] = {
                        "came": sum(self._came.values()),
                        "met": self._met,
                        "distinct": len(self._came),
                    }
                    said["late"] = self._late
                    self._begun = 0  # the next run is another client
                    await self._send(writer, 200, json.dumps(said).encode())
                elif not await self._chat(writer, json.loads(body)):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _chat(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> bool:
        text = str(request["messages"][-1]["content"])
        name = hashlib.sha256(f"{text}{request.get('temperature')}".encode()).hexdigest()
        self._came[name] += 1
        came = sum(self._came.values())
        at, after = self._answered.get(name, (time.monotonic(), came))
        self._late += time.monotonic() - at > LATE_S and came - after > LATE_REQUESTS
        chance = random.Random(f"{name} {self._came[name]}")
        kind = chance.choice(self._kinds) if chance.random() < self._rate else "well"
        self._begun += 1
        if kind in UNLIKE_THE_PROTOCOL and self._begun <= FIRST:
            kind = "well"
        await asyncio.sleep(self._latency)
        self._met[kind] += 1
        said = reply_text(self._prompts, text)
        if kind == "well":
            self._answered.setdefault(name, (time.monotonic(), sum(self._came.values())))
            return await self._send(writer, 200, reply(said))
        return await self._fault(writer, kind, said)

    async def _fault(self, writer: asyncio.StreamWriter, kind: str, said: str) -> bool:
        broken = {
            "429": (429, b'{"error": {"message": "slow down"}}'),
            "500": (500, b'{"error": {"message": "oops"}}'),
            "502-html": (502, b"<html><h1>Bad Gateway</h1></html>"),
            "503": (503, b'{"error": "overloaded"}'),
            "empty": (200, reply("")),
            "null": (200, reply(None)),
            "no-choices": (200, b'{"choices": []}'),
            "error-in-200": (200, b'{"error": {"message": "upstream", "code": 502}}'),
            "truncated": (200, reply(said[: len(said) // 2], "length")),
            "garbage": (200, reply("\x00\ufffd]] [[ 鹭 <statement [[eleven")),
            "notice-finish": (200, reply(NOTICE, "content_filter")),
            "notice-text": (200, reply(NOTICE)),
            "notice-400": (400, b'{"error": {"message": "filtered", "code": "content_filter"}}'),
            "not-json": (200, b'{"choices": [{"mess'),
        }
        if kind in broken:
            return await self._send(writer, *broken[kind])
        if kind == "429-after":
            return await self._send(writer, 429, b'{"error": {"message": "later"}}', "retry-after: 0.05\r\n")
        whole = reply(said)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(whole)}\r\n\r\n".encode()
        if kind == "dropped-in-body":
            writer.write(head + whole[: len(whole) // 2])
            await writer.drain()
        if kind.startswith("dropped"):
            return False
        step, pause = (len(whole), 3.0) if kind == "slow" else (len(whole) // 5 + 1, 0.02)
        writer.write(head)
        for place in range(0, len(whole), step):
            await asyncio.sleep(pause)
            writer.write(whole[place : place + step])
            await writer.drain()
        return True

    async def _send(self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> bool:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return True


def reply(content: str | None, finish: str = "stop") -> bytes:
    """A chat completion."""
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
    judge = Server(options.rate, options.latency, tuple(options.kinds))
    server = await asyncio.start_server(judge.serve, "127.0.0.1", 0, limit=2**24, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
