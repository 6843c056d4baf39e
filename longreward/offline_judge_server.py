"""Serve the offline judge over the OpenAI chat protocol, for tests, demos and measurements of the HTTP side.

    python -m longreward.offline_judge_server --port 0 --latency 0.2

Prints its base URL when it is ready and serves until it is interrupted. HTTP requests contain only the rendered text,
so the server recovers the slots by matching the text against the prompts; a text that matches none gets an unreadable
reply. `GET /stats` returns request counts.
"""

import argparse
import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.builtin.offline_judge.benchmark_rules import BENCHMARK_RULES
from longreward.builtin.offline_judge.judge import NAME, REWARD_RULES
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import PromptSet, load_prompts
from longreward.judge.reasoning import prepend_reasoning
from longreward.judge.retry import PROBE_REQUEST
from longreward.judge.schema_support import SCHEMA_REQUEST
from longreward.judge.structured_output import reply_to_json
from longreward.records import OPTIONAL_DIMENSIONS

Message = MutableMapping[str, Any]

UNKNOWN_PROMPT = (
    "I am sorry, but I know no answer to that: it is none of the prompts that this server was started with."
)


@dataclass(kw_only=True)
class OfflineJudgeApp:
    """The ASGI application."""

    prompts: PromptSet
    benchmarks: Sequence[PromptTemplate] = ()
    latency_s: float = 0.0
    """Waiting time before each reply."""
    key: str | None = None
    """The API key that requests need."""
    refused_word: str | None = None
    """Requests with this word are refused, as by a content filter."""
    reasoning: str = ""
    """Written before each reply."""
    supports_schemas: bool = False
    """Whether `judge.reply_format: auto` detects support of JSON schemas. Prompts for JSON get JSON in any case."""

    def __post_init__(self) -> None:
        self._distinct: set[bytes] = set()
        self._requests = self._in_flight = self._peak = 0

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Handle one HTTP request."""
        body = b""
        more = True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, reply = await self._reply(scope["method"], scope["path"].rstrip("/"), headers, body)
        content_type = (b"content-type", b"application/json")
        await send({"type": "http.response.start", "status": status, "headers": [content_type]})
        await send({"type": "http.response.body", "body": json.dumps(reply, ensure_ascii=False).encode()})

    async def _reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Return the status and the JSON of the reply."""
        if path == "/stats":
            return 200, {"requests": self._requests, "distinct": len(self._distinct), "peak": self._peak}
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, "the key is not the one that this server requires", "invalid_api_key")
        if (method, path) == ("GET", "/v1/models"):
            return 200, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "longreward"}]}
        if (method, path) != ("POST", "/v1/chat/completions"):
            return _error(404, f"there is nothing at {method} {path}", "not_found")
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            return await self._complete(body)
        finally:
            self._in_flight -= 1

    async def _complete(self, body: bytes) -> tuple[int, Any]:
        self._requests += 1
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        try:
            request = json.loads(body)
            # The first one: reminders of the format continue the conversation about it.
            prompt = str(next(message for message in request["messages"] if message["role"] == "user")["content"])
        except (ValueError, LookupError, TypeError, StopIteration):
            return _error(400, "the request needs a message of the user with content", "invalid_request_error")
        if self.refused_word is not None and self.refused_word in prompt:
            return _error(400, "the content filter was triggered", "content_filter")
        self._distinct.add(hashlib.sha256(body).digest())
        text = prepend_reasoning(self.reasoning, self._reply_text(request, prompt))
        # Four characters a token; the counts only have to be plausible.
        usage = {"prompt_tokens": len(prompt) // 4 + 1, "completion_tokens": len(text) // 4 + 1}
        return 200, {
            "id": "chatcmpl-offline",
            "object": "chat.completion",
            "created": 0,
            "model": request.get("model", NAME),
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }

    def _reply_text(self, request: Mapping[str, Any], prompt: str) -> str:
        if prompt == SCHEMA_REQUEST.text and self.supports_schemas and "response_format" in request:
            return '{"analysis": "3 is larger than 2.", "larger": 3}'
        return reply_text(self.prompts, prompt, self.benchmarks)


def reply_text(prompts: PromptSet, message: str, benchmarks: Sequence[PromptTemplate] = ()) -> str:
    """Return the reply of the offline judge to a rendered prompt of the reward or of a benchmark."""
    if message in (PROBE_REQUEST.text, SCHEMA_REQUEST.text):
        return "3 is larger than 2.\n[[3]]"
    rules = REWARD_RULES | BENCHMARK_RULES
    templates = [*prompts.templates.values(), *benchmarks]
    variants = [template.reply_format.structured for template in templates]
    templates += [variant for variant in variants if isinstance(variant, PromptTemplate)]
    # The template with the most literal text first: one may be a special case of another.
    for template in sorted(templates, key=lambda template: -len("".join(template.pieces[::2]))):
        slots = recover_slots(template.pieces, message)
        if slots is not None:
            escaper, schema = template.escaper, template.reply_format.schema
            reply = rules[template.name](
                {slot: escaper.restore(text) if escaper else text for slot, text in slots.items()}
            )
            return reply if schema is None else reply_to_json(reply, schema)
    return UNKNOWN_PROMPT


def recover_slots(pieces: tuple[str, ...], message: str) -> dict[str, str] | None:
    """Return the slot values with which a template (text, slot, text, …, text) renders as `message`; None: no match."""
    first, last = pieces[0], pieces[-1]
    if len(message) < len(first) + len(last) or not message.startswith(first) or not message.endswith(last):
        return None
    slots: dict[str, str] = {}
    # Each slot ends at the first occurrence of the next literal text, which escaping keeps out of the values.
    start, message_end = len(first), len(message) - len(last)
    for index in range(1, len(pieces), 2):
        slot, literal = pieces[index : index + 2]
        end = message_end if index + 2 == len(pieces) else message.find(literal, start, message_end)
        if end < start or slots.setdefault(slot, message[start:end]) != message[start:end]:
            return None
        start = end + len(literal)
    return slots


async def serve(app: OfflineJudgeApp, port: int) -> None:
    """Serve on the loopback address until interrupted; port 0 takes a free one. Prints the base URL when ready."""
    import uvicorn

    class AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)

    # asyncio sets TCP_NODELAY only on sockets with this protocol number.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False)
        await AnnouncingServer(config).serve(sockets=[listener])


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line."""
    from longreward.benchmarks.longbench.benchmark import load_prompts as load_longbench
    from longreward.benchmarks.longbench_chat import load_prompt as load_longbench_chat
    from longreward.benchmarks.mt_bench.judge import load_templates

    parser = argparse.ArgumentParser(
        prog="python -m longreward.offline_judge_server", description="Serve the offline judge."
    )
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="wait before each reply")
    parser.add_argument("--prompts-dir", type=Path, help="recognise the prompts in this folder (default: ours)")
    parser.add_argument("--mt-bench-prompts", type=Path, metavar="FILE", help="recognise this judge_prompts.jsonl")
    parser.add_argument("--longbench-chat-prompt", type=Path, metavar="FILE", help="recognise this prompt_fs.txt")
    parser.add_argument("--longbench-code", type=Path, metavar="FILE", help="recognise the prompts in this 3_eval.py")
    parser.add_argument("--require-key-env", metavar="NAME", help="refuse requests without the key in this variable")
    parser.add_argument("--refuse", metavar="WORD", help="refuse requests with this word as a content filter does")
    parser.add_argument("--think", default="", metavar="TEXT", help="write this reasoning before each reply")
    parser.add_argument("--schemas", action="store_true", help="support JSON schemas (judge.reply_format)")
    options = parser.parse_args(None if arguments is None else list(arguments))
    key = None if options.require_key_env is None else os.environ.get(options.require_key_env)
    if options.require_key_env is not None and not key:
        parser.error(f"--require-key-env: the environment variable {options.require_key_env} is not set")
    benchmarks = [template.prompt for template in load_templates(options.mt_bench_prompts).values()]
    benchmarks += [load_longbench_chat(options.longbench_chat_prompt), *load_longbench(options.longbench_code).values()]
    app = OfflineJudgeApp(
        prompts=load_prompts(options.prompts_dir, optional=OPTIONAL_DIMENSIONS, statements_per_call=2),
        latency_s=options.latency,
        key=key,
        refused_word=options.refuse,
        reasoning=options.think,
        supports_schemas=options.schemas,
        benchmarks=benchmarks,
    )
    asyncio.run(serve(app, options.port))


def _error(status: int, message: str, code: str) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": code, "code": code}}


if __name__ == "__main__":
    main()
