"""A judge behind Anthropic's Messages API (`POST /v1/messages`), through the HTTP client of the `openai` library.

The protocol differs from OpenAI's in the headers, in the form of system prompt, schema, stop sequences and usage, and
in the prompt cache: the part of a prompt that several requests share is cached if the request marks its end. A token
that is written to the cache costs more than a plain one, and one that is read a tenth. So only prompts are marked that
are certain to be shared: those that compare several responses with one document, or with the extracts from it.

https://docs.claude.com/en/api/messages, https://docs.claude.com/en/docs/build-with-claude/prompt-caching
"""

import asyncio
import json
from typing import Any

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage, estimate_tokens
from longreward.errors import RequestRefused
from longreward.judge.config import JudgeConfig
from longreward.judge.continuation import close_verdict
from longreward.judge.http_client import HttpJudge, replace_surrogates, token_counts
from longreward.judge.reasoning import prepend_reasoning

API_VERSION = "2023-06-01"
MIN_CACHED_TOKENS = 1024  # the API caches no shorter prompts; for some models the minimum is larger
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


class AnthropicJudge(HttpJudge):
    """A ChatModel at Anthropic's API, or at another server of that protocol."""

    path = "/messages"
    protocol = "Anthropic messages"

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config)
        self._first_requests: dict[int, asyncio.Event] = {}  # by hash of the shared part; set after the reply

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        prefix = shared_prefix(request)
        if not prefix:
            return await super().complete(request, temperature=temperature)
        # A prompt is in the cache when its first reply has begun: requests in parallel would all write it.
        key = hash(prefix)
        if (first := self._first_requests.get(key)) is not None:
            await first.wait()
            return await super().complete(request, temperature=temperature)
        first = self._first_requests[key] = asyncio.Event()
        try:
            return await super().complete(request, temperature=temperature)
        finally:
            first.set()

    def headers(self, key: str | None) -> dict[str, Any]:
        from openai import Omit

        headers: dict[str, Any] = {"Authorization": Omit(), "anthropic-version": API_VERSION}
        return headers | ({"x-api-key": key} if key else {})

    def request_body(self, request: ChatRequest, temperature: float) -> dict[str, Any]:
        body = super().request_body(request, temperature)
        if (schema := request.reply_format.schema) is not None:
            # `judge.extra_body` may set another field of output_config, as the effort.
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}} | body.get(
                "output_config", {}
            )
        messages: list[dict[str, Any]] = body["messages"]
        if messages[0]["role"] == "system":
            body["system"] = messages.pop(0)["content"]
        if prefix := shared_prefix(request):
            shared, rest = (replace_surrogates(text) for text in (prefix, request.text[len(prefix) :]))
            cached = {"type": "text", "text": shared, "cache_control": {"type": "ephemeral"}}
            messages[0]["content"] = [cached, {"type": "text", "text": rest}]
        return body

    def protocol_fields(self, request: ChatRequest) -> dict[str, Any]:
        stop = self._stop_sequences(request)
        return {"stop_sequences": stop} if stop else {}

    def parse_body(self, body: str, request: ChatRequest) -> ChatReply:
        try:
            message = json.loads(body)
            blocks = {
                kind: "".join(str(block[kind]) for block in _blocks(message, kind)) for kind in ("thinking", "text")
            }
            stop_reason = str(message["stop_reason"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._no_completion(body) from None
        if stop_reason == "refusal":
            raise RequestRefused(self.errors.sanitize(f"the {self.server} declined: {blocks['text'] or 'no reason'}"))
        text = close_verdict(blocks["text"]) if stop_reason == "stop_sequence" else blocks["text"]
        return ChatReply(
            replace_surrogates(self.errors.mask_key(prepend_reasoning(blocks["thinking"], text))),
            _FINISH_REASONS.get(stop_reason, stop_reason),
            parse_usage(message.get("usage")),
            str(message.get("model") or ""),
        )


def shared_prefix(request: ChatRequest) -> str:
    """Return the part of a prompt that is the same for all responses to a query; empty where caching would not pay.

    It ends after the document, or the extracts from it. Prompts without a response are requested once, and so are the
    passages that were retrieved for one statement.
    """
    context = request.slots.get("context")
    if not context or not any(slot.startswith("answer") for slot in request.slots):
        return ""
    escaped: str = getattr(context, "escaped", context)
    start = request.text.find(escaped)
    prefix = request.text[: start + len(escaped)] if start >= 0 else ""
    return prefix if estimate_tokens(prefix) >= MIN_CACHED_TOKENS else ""


def parse_usage(usage: Any) -> TokenUsage:
    """Return the usage; unlike `input_tokens`, our prompt tokens include those of the cache."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    plain, read, written, output = token_counts([usage.get(name) if isinstance(usage, dict) else 0 for name in names])
    return TokenUsage(plain + read + written, output, read, written)


def _blocks(message: Any, kind: str) -> list[Any]:
    return [block for block in message["content"] if block["type"] == kind]
