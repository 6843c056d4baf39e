"""A judge behind a server that speaks the OpenAI chat protocol, called through the `openai` library.

`complete` sends exactly one request. `utils/http_errors.py` classifies failures, and `retry.py` repeats the calls that
may succeed later. The differences between servers are in the presets of `config.py`.
"""

import asyncio
import itertools
import json
import os
from typing import TYPE_CHECKING, Any

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage, estimate_tokens, with_logprobs
from longreward.errors import ConfigError, JudgeError, JudgeRefused, JudgeUnavailable, RequestRefused, TransientFailure
from longreward.judge.config import JudgeConfig
from longreward.judge.reasoning import prepend_reasoning
from longreward.utils.endpoints import read_key
from longreward.utils.http_errors import CONNECT_TIMEOUT_S, ErrorMapper, is_filter_notice, reported_status

if TYPE_CHECKING:
    from openai import AsyncOpenAI

TOTAL_TIMEOUT_FACTOR = 10  # times timeout_s, for a whole reply that arrives in small pieces
# httpx checks every idle connection of its pool for each request, so several small pools are faster than a large one.
POOL_SIZE, MAX_POOLS = 16, 8
MIN_WINDOW_TOKENS = 8192  # for a part of 4,096 tokens with its prompt and reply, or the extracts of a document
WINDOW_ADVICE = (
    "start it with OLLAMA_CONTEXT_LENGTH={tokens} or more (then check `ollama ps`), or give the model "
    "`PARAMETER num_ctx {tokens}` in a Modelfile"
)
_FILTER_FINISH_REASONS = ("content_filter", "sensitive", "refusal")


class HttpJudge:
    """A ChatModel over HTTP. The API key appears in no error, reply or repr."""

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
        self._round_robin = itertools.cycle(self._clients)
        self._has_replied = False
        self._supports_logprobs = True  # until it refuses a request that asks for them
        self.errors = ErrorMapper(
            server=f"judge {self._model!r} at {self.client.base_url}",
            section="judge",
            key=key,
            key_env=api_key_variable(config) or "the variable that judge.api_key_env names",
            timeout_s=config.timeout_s,
            connect_s=connect_s,
        )
        self.window = OllamaContextWindow(self.client, self._model) if config.kind == "ollama" else None

    @property
    def name(self) -> str:
        return self._model

    @property
    def server(self) -> str:
        """The judge and its address, for messages."""
        return self.errors.server

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        from openai import APIError

        self._check_window(request)
        timeout_s = TOTAL_TIMEOUT_FACTOR * self._config.timeout_s
        failure: JudgeError
        try:
            # A body that arrives byte by byte never exceeds the library's timeout, which is one between two bytes.
            async with asyncio.timeout(timeout_s):
                # `chat.completions.create` would spend 0.2 ms on copying the fields by their types.
                body = await next(self._round_robin).post(
                    "/chat/completions", cast_to=str, body=self.request_body(request, temperature)
                )
            reply = self.parse_body(body, request)
        except APIError as error:
            failure = self.errors.from_exception(error)
        except TimeoutError:
            failure = JudgeUnavailable(f"the {self.server} had not answered in full after {timeout_s:g} s")
            failure.transient = TransientFailure(timed_out=True)
        else:
            self._has_replied = True
            if self.window is not None:
                await self.window.fetch()
                self._check_window(request)
            return reply
        if request.top_logprobs and self._supports_logprobs and _is_about_logprobs(failure):
            self._supports_logprobs = False
            return await self.complete(request, temperature=temperature)
        raise failure  # outside the except block: the library's error contains the request with its headers

    async def list_models(self) -> tuple[str, ...]:
        """Return the models that the server lists; empty where it cannot."""
        from openai import APIError

        try:
            models = self.client.with_options(max_retries=0).models.list()
            return tuple(sorted([model.id async for model in models]))
        except (APIError, ValueError, LookupError, TypeError, AttributeError):
            return ()

    async def parallel_slots(self) -> int | None:
        """Return how many requests the server processes at once, if it says so, as that of llama.cpp does."""
        properties = await _get_json(self.client, "/props")
        slots = properties.get("total_slots") if isinstance(properties, dict) else None
        return slots if isinstance(slots, int) and slots > 0 else None

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    def request_body(self, request: ChatRequest, temperature: float) -> dict[str, Any]:
        """Return the fields of the HTTP request; those of `judge.extra_body` replace ours, and null omits one."""
        config, preset = self._config, self._config.preset
        fields: dict[str, Any] = {
            config.length_field or preset.length_field: request.max_tokens + config.thinking_tokens,
            "temperature": temperature,
        }
        if request.top_logprobs and self._supports_logprobs:
            fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        extra = {name: value for name, value in config.extra_body.items() if value is not None}
        if temperature == 0 and preset.greedy:
            del fields["temperature"]
            extra = {**preset.greedy, **extra}
        fields = {name: value for name, value in fields.items() if name not in config.extra_body}
        system = request.system_prompt(config.system)
        messages = [{"role": "system", "content": _replace_surrogates(system)}] if system else []
        messages.append({"role": "user", "content": _replace_surrogates(request.text)})
        return {**fields, "model": self._model, "messages": messages, **extra}

    def parse_body(self, body: str, request: ChatRequest) -> ChatReply:
        """Parse the body of a successful HTTP reply; raises JudgeError where it contains no reply of the model."""
        try:
            completion = json.loads(body)
            choice = completion["choices"][0]
            message = choice["message"]
            text, finish_reason = message.get("content") or "", choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._no_completion(body) from None
        if finish_reason in _FILTER_FINISH_REASONS:
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
        text = prepend_reasoning(reasoning if isinstance(reasoning, str) else "", text)
        return ChatReply(
            _replace_surrogates(self.errors.mask_key(text)),
            str(finish_reason),
            _parse_usage(completion.get("usage")),
            str(completion.get("model") or ""),
        )

    def _no_completion(self, body: str) -> JudgeError:
        status = reported_status(body)
        if status is not None:
            return self.errors.from_status(status, body)
        failure = self.errors.protocol_error(body)
        # After proper replies this is an accident of the server; before them, the address is probably wrong.
        failure.transient = TransientFailure() if self._has_replied else None
        return failure

    def _check_window(self, request: ChatRequest) -> None:
        """Raise JudgeRefused for a prompt that Ollama would truncate."""
        window = self.window.tokens if self.window is not None else None
        prompt_tokens = estimate_tokens(request.system_prompt(self._config.system) + request.text)
        total = prompt_tokens + request.max_tokens + self._config.thinking_tokens
        if window is not None and prompt_tokens > window:
            advice = WINDOW_ADVICE.format(tokens=2 ** total.bit_length())
            raise JudgeRefused(
                f"the {self.server} reads {window:,} tokens of a prompt and cuts the rest off without a word; this one "
                f"({request.template}) has about {prompt_tokens:,}: {advice}"
            )


class OllamaContextWindow:
    """The context window of one model on an Ollama server, fetched once, after the model was first used.

    Ollama silently truncates longer prompts, to 4,096 tokens by default on small machines, and no field of the OpenAI
    protocol sets the window. Its list of loaded models shows it.
    """

    def __init__(self, client: "AsyncOpenAI", model: str) -> None:
        self._client = client
        self._names = {model, f"{model}:latest"}
        self._lock = asyncio.Lock()
        self._is_fetched = False
        self.tokens: int | None = None
        """None: not fetched yet, or an older server, which does not show it."""

    async def fetch(self) -> None:
        """Set `tokens`; only the first call sends a request."""
        async with self._lock:
            if self._is_fetched:
                return
            loaded = await _get_json(self._client, "/api/ps")
            self._is_fetched = True
            try:
                sizes = [
                    int(model["context_length"])
                    for model in loaded["models"]
                    if {model.get("name"), model.get("model")} & self._names
                ]
            except (ValueError, LookupError, TypeError):
                return
            self.tokens = sizes[0] if sizes else None


def read_api_key(config: JudgeConfig) -> str | None:
    """Read the key of a judge from the environment; None where it needs none.

    Raises ConfigError where it needs one and the environment contains none.
    """
    variable = api_key_variable(config)
    if variable is None:
        return None
    owner = f"judge {config.model!r}"
    is_set = bool(os.environ.get(variable, "").strip())
    if config.api_key_env is None and not is_set and config.kind != "http":
        if not config.preset.needs_key:
            return None  # a local server, which usually needs none
        raise ConfigError(
            f"the environment variable {variable} holds no key for {owner}; set it, or name another one with "
            "judge.api_key_env"
        )
    return read_key(variable, base_url=config.base_url, owner=owner, section="judge")


def api_key_variable(config: JudgeConfig) -> str | None:
    """Return the environment variable whose key is sent to this judge; None: no key is sent."""
    if config.kind == "offline":
        return None
    if config.api_key_env is not None:
        return config.api_key_env
    return config.preset.key_env if config.preset.trusts(config.base_url) else None


async def _get_json(client: "AsyncOpenAI", path: str) -> Any:
    """Get a path outside the OpenAI protocol, from the root of the server; None where it does not exist."""
    from openai import APIError

    root = str(client.base_url).rstrip("/").removesuffix("/v1")
    try:
        return await client.with_options(max_retries=0).get(f"{root}{path}", cast_to=object)
    except (APIError, ValueError, LookupError, TypeError):
        return None


def _is_about_logprobs(failure: JudgeError) -> bool:
    return isinstance(failure, JudgeRefused) and "logprob" in str(failure).lower()


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # UTF-8 cannot represent a lone surrogate


def _parse_usage(usage: Any) -> TokenUsage:
    if not isinstance(usage, dict):
        return TokenUsage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
    # Values that cannot be token counts are ignored; SQLite, for one, stores no larger integers than 64 bits.
    return TokenUsage(*(count if isinstance(count, int) and 0 <= count < 2**40 else 0 for count in counts))
