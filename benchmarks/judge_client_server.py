"""A judge server with a fixed latency and little CPU use: `python judge_client_server.py 0.2` prints its URL.

It reads only what it must of HTTP/1.1 (the length of a body, on connections that are kept) and says the same to all.
"""

import asyncio
import json
import re
import sys

SAID = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is to the point. " * 20 + "Rating: [[7]]"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 800, "completion_tokens": 110, "total_tokens": 910},
}
BODY = json.dumps(SAID).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Judge(asyncio.Protocol):
    """One connection."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        head, end, body = self._waiting.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if end and len(body) >= int(length[1] if length else 0):
            self._waiting = b""
            asyncio.get_running_loop().call_later(self._latency, self._say)

    def _say(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(REPLY)


async def main() -> None:
    latency = float(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(lambda: Judge(latency), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
