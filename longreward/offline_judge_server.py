"""The offline judge as a server of the OpenAI chat protocol, for tests, demos and measurements of the HTTP side.

    python -m longreward.offline_judge_server --port 0 --latency 0.2

It prints its base URL when it is ready and serves until it is interrupted. Only text arrives over HTTP, so it recovers
what stands in the slots by laying the message against the prompts; a message that fits none gets an unreadable
sentence. The fault switches make it the server that one hopes not to meet. `GET /stats` tells what it was asked.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longreward.builtin.offline_judge.judge import BENCHMARKS, NAME, RULES
from longreward.judge.prompt_template import JudgePrompt
from longreward.judge.prompts import PromptSet, load_prompts
from longreward.judge.reasoning import prepend_reasoning
from longreward.judge.retry import PROBE_REQUEST

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class Faults:
    """What goes wrong on purpose, for the first `count` chat requests (None: for all)."""

    status: int | None = None
    retry_after: float | None = None
    html: bool = False
    empty: bool = False
    fail_rate: float = 0.0
    refused_word: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class Reply:
    """A status, a body and headers."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class OfflineServer:
    """The ASGI application."""

    def __init__(
        self,
        prompts: PromptSet,
        *,
        latency_s: float = 0.0,
        key: str | None = None,
        faults: Faults | None = None,
        thought: str = "",
        benchmarks: Sequence[JudgePrompt] = (),
    ) -> None:
        self._prompts = prompts
        self._benchmarks = benchmarks
        self._latency_s = latency_s
        self._key = key
        self._faults = faults or Faults()
        self._thought = thought
        self._random = random.Random(0)
        self._seen: set[bytes] = set()
        self._requests = self._running = self._peak = 0

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answers one HTTP request."""
        body = b""
        more = True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        reply = await self._reply(scope["method"], scope["path"].rstrip("/"), headers, body)
        sent = {"content-type": "application/json"} | reply.headers
        pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        if path == "/stats":
            return _json(200, {"requests": self._requests, "distinct": len(self._seen), "peak": self._peak})
        if self._key is not None and headers.get("authorization") != f"Bearer {self._key}":
            return _error(401, "the key is not the one that this server asks for", "invalid_api_key")
        if (method, path) == ("GET", "/v1/models"):
            return _json(200, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "longreward"}]})
        if (method, path) != ("POST", "/v1/chat/completions"):
            return _error(404, f"there is nothing at {method} {path}", "not_found")
        self._running += 1
        self._peak = max(self._peak, self._running)
        try:
            return await self._chat(body)
        finally:
            self._running -= 1

    async def _chat(self, body: bytes) -> Reply:
        self._requests += 1
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        try:
            request = json.loads(body)
            text = str(request["messages"][-1]["content"])
        except (ValueError, LookupError, TypeError):
            return _error(400, "the request needs messages, the last one with content", "invalid_request_error")
        fault = self._fault(text)
        if fault is not None:
            return fault
        self._seen.add(hashlib.sha256(body).digest())
        said = answer_text(self._prompts, text, self._benchmarks)
        return _completion(request, text, prepend_reasoning(self._thought, said))

    def _fault(self, text: str) -> Reply | None:
        faults = self._faults
        if faults.refused_word is not None and faults.refused_word in text:
            return _error(400, "the content filter was triggered", "content_filter")
        if faults.count is not None and self._requests > faults.count:
            return None
        if faults.status is not None:
            after = {} if faults.retry_after is None else {"retry-after": f"{faults.retry_after:g}"}
            reply = _error(faults.status, "wanted by --status", "wanted")
            return Reply(reply.status, reply.body, after)
        if faults.html:
            return Reply(200, b"<html><body><h1>Welcome</h1></body></html>", {"content-type": "text/html"})
        if faults.empty:
            return Reply(200, b"")
        if self._random.random() < faults.fail_rate:
            return _error(500, "wanted by --fail-rate", "wanted")
        return None


def answer_text(prompts: PromptSet, message: str, benchmarks: Sequence[JudgePrompt] = ()) -> str:
    """What the offline judge says to a rendered prompt of the reward or of a benchmark."""
    if message == PROBE_REQUEST.text:
        return "3 is larger than 2.\n[[3]]"
    rules = {**RULES, **BENCHMARKS}
    of_reward = [(str(each.name), each.pieces, each.marks) for each in prompts.templates.values()]
    known = [*of_reward, *((each.template, each.pieces, each.marks) for each in benchmarks)]
    for name, pieces, marks in sorted(known, key=lambda each: -len("".join(each[1][::2]))):
        slots = recover_slots(pieces, message)
        if slots is not None:
            return rules[name]({slot: marks.restore(text) if marks else text for slot, text in slots.items()})
    return "I am sorry, but I know no answer to that: it is none of the prompts that this server was started with."


def recover_slots(pieces: tuple[str, ...], message: str) -> dict[str, str] | None:
    """What fills the slots of a template (text, slot, text, …, text) so that it reads as `message`; None: it can't."""
    first, last = pieces[0], pieces[-1]
    if len(message) < len(first) + len(last) or not message.startswith(first) or not message.endswith(last):
        return None
    end = len(message) - len(last)
    slots: dict[str, str] = {}
    place = len(first)
    for index in range(1, len(pieces), 2):
        slot, literal = pieces[index : index + 2]
        stop = end if index + 2 == len(pieces) else message.find(literal, place, end)
        if stop < place or slots.setdefault(slot, message[place:stop]) != message[place:stop]:
            return None
        place = stop + len(literal)
    return slots


async def serve(application: OfflineServer, port: int) -> None:
    """Serves on the loopback address until interrupted; port 0 takes a free one. Prints the base URL when ready."""
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)

    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # asyncio sets TCP_NODELAY only where it reads this
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        settings = uvicorn.Config(application, log_level="warning", lifespan="off", access_log=False)
        await Announcing(settings).serve(sockets=[listener])


def main(arguments: Iterable[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(None if arguments is None else list(arguments))
    key = None if options.require_key_env is None else os.environ.get(options.require_key_env)
    if options.require_key_env is not None and not key:
        parser.error(f"--require-key-env: the environment variable {options.require_key_env} is not set")
    faults = Faults(
        status=options.status,
        retry_after=options.retry_after,
        html=options.html,
        empty=options.empty,
        fail_rate=options.fail_rate,
        refused_word=options.refuse,
        count=options.faults,
    )
    from longreward.benchmarks.longbench.benchmark import load_prompts as load_longbench
    from longreward.benchmarks.longbench_chat.benchmark import load_prompt as load_longbench_chat
    from longreward.benchmarks.mt_bench.judge import load_templates

    benchmarks = [each.prompt for each in load_templates(options.mt_bench_prompts).values()]
    benchmarks += [load_longbench_chat(options.longbench_chat_prompt), *load_longbench(options.longbench_code).values()]
    prompts = load_prompts(options.prompts_dir)
    application = OfflineServer(
        prompts, latency_s=options.latency, key=key, faults=faults, thought=options.think, benchmarks=benchmarks
    )
    asyncio.run(serve(application, options.port))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m longreward.offline_judge_server", description="Serve the offline judge."
    )
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="wait before each answer")
    parser.add_argument("--prompts-dir", type=Path, help="recognise the prompts in this folder (default: ours)")
    parser.add_argument("--mt-bench-prompts", type=Path, metavar="FILE", help="recognise this judge_prompts.jsonl")
    parser.add_argument("--longbench-chat-prompt", type=Path, metavar="FILE", help="recognise this prompt_fs.txt")
    parser.add_argument("--longbench-code", type=Path, metavar="FILE", help="recognise the prompts in this 3_eval.py")
    parser.add_argument("--require-key-env", metavar="NAME", help="refuse requests without the key in this variable")
    parser.add_argument("--status", type=int, help="answer with this status")
    parser.add_argument("--retry-after", type=float, metavar="SECONDS", help="with --status: send this header")
    parser.add_argument("--html", action="store_true", help="answer with a web page")
    parser.add_argument("--empty", action="store_true", help="answer with an empty body")
    parser.add_argument("--fail-rate", type=float, default=0.0, help="answer this share of requests with 500")
    parser.add_argument("--refuse", metavar="WORD", help="refuse questions with this word as a content filter does")
    parser.add_argument("--think", default="", metavar="TEXT", help="think this aloud before each answer")
    parser.add_argument("--faults", type=int, metavar="N", help="only the first N requests meet these faults")
    return parser


def _completion(request: dict[str, Any], asked: str, text: str) -> Reply:
    usage = {"prompt_tokens": len(asked) // 4 + 1, "completion_tokens": len(text) // 4 + 1}
    return _json(
        200,
        {
            "id": "chatcmpl-offline",
            "object": "chat.completion",
            "created": 0,
            "model": request.get("model", NAME),
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": usage | {"total_tokens": sum(usage.values())},
        },
    )


def _error(status: int, message: str, code: str) -> Reply:
    return _json(status, {"error": {"message": message, "type": code, "code": code}})


def _json(status: int, value: Any) -> Reply:
    return Reply(status, json.dumps(value, ensure_ascii=False).encode())


if __name__ == "__main__":
    main()
