"""A judge behind a server that speaks the OpenAI chat protocol, called through the `openai` library.

`complete` sends exactly one request. `utils/http_errors.py` classifies failures, and `retry.py` repeats the calls that
may succeed later. The differences between servers are in the presets of `config.py`.
"""

import asyncio
import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage, with_logprobs
from longreward.errors import (
    JudgeError,
    JudgeRefused,
    JudgeUnavailable,
    PromptTooLong,
    RequestRefused,
    TransientFailure,
)
from longreward.judge.config import JudgeConfig
from longreward.judge.context_window import shorten_advice, window_from_models, window_from_properties
from longreward.judge.continuation import close_verdict
from longreward.judge.reasoning import prepend_reasoning
from longreward.judge.structured_output import fix_list_length
from longreward.utils.endpoints import read_key
from longreward.utils.http_errors import CONNECT_TIMEOUT_S, ErrorMapper, is_filter_notice, reported_status

TOTAL_TIMEOUT_FACTOR = 10  # times timeout_s, for a whole reply that arrives in small pieces
# httpx checks every idle connection of its pool for each request, so several small pools are faster than a large one.
POOL_SIZE, MAX_POOLS = 16, 8
PROPERTIES_PATH = "/props"  # of llama.cpp's server
LIST_LENGTH = "maxItems"  # in a schema, with minItems: llama.cpp enforces both, Azure OpenAI supports neither
# What a request can do without, and how a refusal of each names it.
OPTIONAL_FIELDS = {"logprobs": "logprob", "stop": "stop", LIST_LENGTH: "items"}
# In lower case: Gemini passes on its own names ("SAFETY"), or adds one ("content_filter: SAFETY").
_FILTER_FINISH_REASONS = (
    *("content_filter", "sensitive", "refusal"),
    *("safety", "recitation", "blocklist", "prohibited_content", "spii"),
)


class HttpJudge:
    """A ChatModel over HTTP. The API key appears in no error, reply or repr."""

    path = "/chat/completions"
    protocol = "OpenAI chat"

    def __init__(self, config: JudgeConfig) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        assert config.model is not None, "JudgeConfig requires a model for every kind but offline"
        self._config = config
        self._model = config.model
        key = read_api_key(config)
        connect_s = min(config.timeout_s, CONNECT_TIMEOUT_S)
        self.client = AsyncOpenAI(
            base_url=config.address,
            api_key=key or "none",  # the library requires one; servers without keys ignore it
            timeout=Timeout(config.timeout_s, connect=connect_s),
            max_retries=0,
        )
        pools = min(MAX_POOLS, 1 + (config.max_concurrency - 1) // POOL_SIZE)
        self._clients = [self.client]
        for _ in range(pools - 1):
            http_client = DefaultAsyncHttpxClient(base_url=self.client.base_url, timeout=self.client.timeout)
            self._clients.append(self.client.with_options(http_client=http_client))
        self._options: Any = {"headers": self.headers(key)}
        self._round_robin = itertools.cycle(self._clients)
        self._has_replied = False
        self._window: int | None = None
        self._refused_fields: set[str] = set()  # optional ones, which the server does not accept
        self.errors = ErrorMapper(
            server=f"judge {self._model!r} at {self.client.base_url}",
            section="judge",
            key=key,
            key_env=api_key_variable(config) or "the variable that judge.api_key_env names",
            timeout_s=config.timeout_s,
            connect_s=connect_s,
            protocol=self.protocol,
        )

    @property
    def name(self) -> str:
        return self._model

    @property
    def server(self) -> str:
        """The judge and its address, for messages."""
        return self.errors.server

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        from openai import APIError

        fields = self.request_body(request, temperature)
        timeout_s = TOTAL_TIMEOUT_FACTOR * self._config.timeout_s
        failure: JudgeError
        try:
            # A body that arrives byte by byte never exceeds the library's timeout, which is one between two bytes.
            async with asyncio.timeout(timeout_s):
                # `chat.completions.create` would spend 0.2 ms on copying the fields by their types.
                body = await next(self._round_robin).post(self.path, cast_to=str, body=fields, options=self._options)
            reply = self.parse_body(body, request)
        except APIError as error:
            failure = self.errors.from_exception(error)
        except TimeoutError:
            failure = JudgeUnavailable(f"the {self.server} had not answered in full after {timeout_s:g} s")
            failure.transient = TransientFailure(timed_out=True)
        else:
            self._has_replied = True
            return reply
        if isinstance(failure, JudgeRefused):
            # Other requests in flight may have met the same refusal, so what counts is what this one contained.
            sent = fields.keys() - self._config.extra_body.keys()
            if "response_format" in sent and LIST_LENGTH in str(fields["response_format"]):
                sent.add(LIST_LENGTH)
            refused = {name for name in sent & OPTIONAL_FIELDS.keys() if OPTIONAL_FIELDS[name] in str(failure).lower()}
            if refused:
                self._refused_fields |= refused
                return await HttpJudge.complete(self, request, temperature=temperature)
        if isinstance(failure, PromptTooLong):
            window = await self.fetch_window()
            size = f"; its context window is {window:,} tokens" if window else ""
            raise PromptTooLong(f"{failure}{size}; {shorten_advice(request.template)} (prompt {request.template})")
        raise failure  # outside the except block: the library's error contains the request with its headers

    async def list_models(self) -> tuple[str, ...]:
        """Return the models that the server lists; empty where it cannot."""
        from openai import APIError

        try:
            models = self.client.models.list(extra_headers=self._options["headers"])
            return tuple(sorted([model.id async for model in models]))
        except (APIError, ValueError, LookupError, TypeError, AttributeError):
            return ()

    async def advice(self) -> list[str]:
        """Return what to change in the settings or on the server, one sentence each; call it after a reply."""
        properties = await self.get_json(PROPERTIES_PATH)
        slots = properties.get("total_slots") if isinstance(properties, dict) else None
        if not isinstance(slots, int) or not 0 < slots < self._config.max_concurrency:
            return []
        return [
            f"it works on {slots} requests at once, and judge.max_concurrency is {self._config.max_concurrency}: those "
            f"that wait count towards judge.timeout_s. Set judge.max_concurrency to {slots}"
        ]

    async def fetch_window(self) -> int | None:
        """Return the server's context window in tokens; None where it does not report one."""
        if self._window is None:
            self._window = window_from_properties(await self.get_json(PROPERTIES_PATH))
        if self._window is None:
            self._window = window_from_models(await self.get_json("/v1/models"), self._model)
        return self._window

    def larger_window_advice(self, tokens: int) -> str:
        """Return how to give the server a window of at least so many tokens."""
        return "start the server with a larger context window"

    async def get_json(self, path: str) -> Any:
        """Get a path outside the OpenAI protocol, from the root of the server; None where it does not exist."""
        from openai import APIError

        root = str(self.client.base_url).rstrip("/").removesuffix("/v1")
        try:
            return await self.client.get(f"{root}{path}", cast_to=object, options=self._options)
        except (APIError, ValueError, LookupError, TypeError):
            return None

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    def headers(self, key: str | None) -> dict[str, Any]:
        """Return the headers of each request besides those of the OpenAI protocol."""
        return {}

    def request_body(self, request: ChatRequest, temperature: float) -> dict[str, Any]:
        """Return the fields of the HTTP request; those of `judge.extra_body` replace ours, and null omits one."""
        config, provider = self._config, self._config.provider
        fields: dict[str, Any] = {
            config.sent_length_field: request.max_tokens + config.thinking_tokens,
            "temperature": temperature,
            **self.protocol_fields(request),
        }
        extra = {name: value for name, value in config.extra_body.items() if value is not None}
        if temperature == 0 and provider.greedy:
            del fields["temperature"]
            extra = {**provider.greedy, **extra}
        fields = {name: value for name, value in fields.items() if name not in config.extra_body}
        messages = [
            {"role": message["role"], "content": replace_surrogates(message["content"])}
            for message in request.messages(config.system)
        ]
        return {**fields, "model": self._model, "messages": messages, **extra}

    def protocol_fields(self, request: ChatRequest) -> dict[str, Any]:
        """Return the fields of a request that other protocols do not have."""
        fields: dict[str, Any] = {}
        if request.top_logprobs and "logprobs" not in self._refused_fields:
            fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if stop := self._stop_sequences(request):
            fields["stop"] = stop
        if (schema := request.reply_format.schema) is not None:
            # A batch cannot be sent again without the field. Anthropic's API always refuses a length above 1.
            can_limit = LIST_LENGTH not in self._refused_fields and self._config.mode != "batch"
            if can_limit and (length := request.reply_format.list_length) is not None:
                schema = fix_list_length(schema, length)
            json_schema = {"name": request.template, "schema": schema, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return fields

    def parse_body(self, body: str, request: ChatRequest) -> ChatReply:
        """Parse the body of a successful HTTP reply; raises JudgeError where it contains no reply of the model."""
        try:
            completion = json.loads(body)
            choice = completion["choices"][0]
            message = choice["message"]
            text, finish_reason = message.get("content") or "", choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._no_completion(body) from None
        if str(finish_reason).lower().partition(":")[0] in _FILTER_FINISH_REASONS:
            raise RequestRefused(self.errors.sanitize(f"the {self.server} withheld its answer ({finish_reason})"))
        if not text and message.get("refusal"):
            raise RequestRefused(self.errors.sanitize(f"the {self.server} declined: {message['refusal']}"))
        if isinstance(text, list):  # of content parts
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
        if not isinstance(text, str):
            raise self._no_completion(body)
        if is_filter_notice(text):
            raise RequestRefused(self.errors.sanitize(f"the {self.server} withheld its answer: {text}"))
        if request.top_logprobs:
            text = with_logprobs(text, choice.get("logprobs"))
        # vLLM, SGLang, Zhipu, DeepSeek and Ollama put the reasoning beside the reply, under one of these names.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        if finish_reason == "stop" and self._stop_sequences(request):
            text = close_verdict(text)
        text = prepend_reasoning(reasoning if isinstance(reasoning, str) else "", text)
        return ChatReply(
            replace_surrogates(self.errors.mask_key(text)),
            str(finish_reason),
            _parse_usage(completion.get("usage")),
            str(completion.get("model") or ""),
        )

    def _stop_sequences(self, request: ChatRequest) -> list[str]:
        """Return the stop sequences to send.

        None where reasoning might contain one, and in batches of a provider, where a refused field ends the run.
        """
        config = self._config
        if config.thinking_tokens or config.mode == "batch":
            return []
        if "stop" in self._refused_fields or "stop" in config.extra_body:
            return []
        return list(request.reply_format.stop[: config.provider.max_stops])

    def _no_completion(self, body: str) -> JudgeError:
        status = reported_status(body)
        if status is not None:
            return self.errors.from_status(status, body)
        failure = self.errors.protocol_error(body)
        # After proper replies this is an accident of the server; before them, the address is probably wrong.
        failure.transient = TransientFailure() if self._has_replied else None
        return failure


def read_api_key(config: JudgeConfig) -> str | None:
    """Read the key of a judge from the environment; None where it needs none.

    Raises ConfigError where it needs one and the environment contains none.
    """
    variable = api_key_variable(config)
    if variable is None:
        return None
    provider = config.provider
    if (
        config.api_key_env is None
        and config.address
        and not provider.needs_key
        and not os.environ.get(variable, "").strip()
    ):
        return None  # a local server, which usually needs none
    base_url = None if provider.needs_key else config.base_url
    return read_key(variable, base_url=base_url, owner=f"judge {config.model!r}", section="judge")


def api_key_variable(config: JudgeConfig) -> str | None:
    """Return the environment variable whose key is sent to this judge; None: no key is sent."""
    if config.kind == "offline":
        return None
    if config.api_key_env is not None:
        return config.api_key_env
    return config.provider.key_env if config.provider.trusts(config.base_url) else None


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot represent, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _parse_usage(usage: Any) -> TokenUsage:
    if not isinstance(usage, dict):
        return TokenUsage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    prompt, completion, total, cached = token_counts([*map(usage.get, names), cached])
    # Gemini counts reasoning in the total only, but charges for it.
    return TokenUsage(prompt, max(completion, total - prompt) if prompt else completion, cached)


def token_counts(values: Sequence[Any]) -> list[int]:
    """Return zeros in place of values that cannot be token counts; SQLite stores no integers above 64 bits."""
    return [value if isinstance(value, int) and 0 <= value < 2**40 else 0 for value in values]
