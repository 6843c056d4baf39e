"""The key to a judge's server, from the environment alone: which variable, and whether it must be there."""

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
from longreward.utils.http_errors import ErrorMapper, is_filter_notice, reported_status


def read_api_key(config: JudgeConfig) -> str | None:
    """The key to send; None where none is needed. Raises ConfigError where one is needed and not there."""
    variable = api_key_variable(config)
    if variable is None:
        return None
    whose, preset = f"judge {config.model!r}", config.preset
    there = bool(os.environ.get(variable, "").strip())
    if config.api_key_env is None and not there and config.kind != "http":
        if not preset.key_needed:
            return None  # a server of one's own, which mostly asks for none
        raise ConfigError(
            f"the environment variable {variable} holds no key for {whose}; set it, or name another one with "
            "judge.api_key_env"
        )
    return read_key(variable, base_url=config.base_url, whose=whose, section="judge")


def api_key_variable(config: JudgeConfig) -> str | None:
    """The variable whose key this judge gets, where it is set; None: it gets none."""
    if config.kind == "offline":
        return None
    if config.api_key_env is not None:
        return config.api_key_env
    return config.preset.key_env if config.preset.owns(config.base_url) else None


# How much an Ollama server reads of a prompt: its context window, of which the OpenAI protocol knows nothing.
#
# A longer prompt is cut without a word, 4,096 tokens being the default on small machines, and no field of the protocol
# sets the window. So it is looked up where Ollama tells it, in the list of loaded models, and held against each prompt.


if TYPE_CHECKING:
    from openai import AsyncOpenAI

MIN_WINDOW_TOKENS = 8192  # a part of 4,096 tokens with its prompt and answer, or the extracts of a document
WINDOW_ADVICE = (
    "start it with OLLAMA_CONTEXT_LENGTH={wanted} or more (then check `ollama ps`), or give the model "
    "`PARAMETER num_ctx {wanted}` in a Modelfile"
)


class ContextWindow:
    """The window of one model on one server, looked up once, after the model was first used."""

    def __init__(self, client: "AsyncOpenAI", model: str) -> None:
        self._client = client
        self._model = model
        self._lock = asyncio.Lock()
        self._looked = False
        self.tokens: int | None = None
        """None: not looked up yet, or the server does not tell."""

    async def look(self) -> int | None:
        """The window in tokens; None where the server (older than the field) does not tell."""
        async with self._lock:
            if not self._looked:
                self.tokens = await self._found()
                self._looked = True
        return self.tokens

    async def _found(self) -> int | None:
        from openai import APIError

        root = str(self._client.base_url).rstrip("/").removesuffix("/v1")
        try:
            listed: Any = await self._client.with_options(max_retries=0).get(f"{root}/api/ps", cast_to=object)
            sizes = [each["context_length"] for each in listed["models"] if self._is_ours(each)]
            return int(sizes[0]) if sizes else None
        except (APIError, ValueError, LookupError, TypeError):
            return None

    def _is_ours(self, loaded: dict[str, Any]) -> bool:
        names = {loaded.get("name"), loaded.get("model")}
        return bool(names & {self._model, f"{self._model}:latest"})


# A judge behind any server that speaks the OpenAI chat protocol, asked through the `openai` library.
#
# One call is one request. `utils/http_errors.py` classifies failures; `retry.py` repeats what may succeed later.


if TYPE_CHECKING:
    from openai import AsyncOpenAI


class HttpJudge:
    """A ChatModel over HTTP. The key comes from the environment and appears in no error, answer or repr."""

    def __init__(self, config: JudgeConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None, "JudgeConfig holds every kind but offline to a model"
        self._config = config
        self._model = config.model
        key = read_api_key(config)
        connect_s = min(config.timeout_s, CONNECT_S)
        self._client = AsyncOpenAI(
            base_url=config.address,
            api_key=key or "none",  # the library insists on one; servers without keys ignore it
            timeout=Timeout(config.timeout_s, connect=connect_s),
            max_retries=0,
        )
        pools = min(MOST_POOLS, 1 + (config.max_concurrency - 1) // POOL)
        self._clients = [self._client, *(_with_own_pool(self._client) for _ in range(pools - 1))]
        self._turns = itertools.cycle(self._clients)
        self._timeout_s = config.timeout_s
        self._spoke = False
        self._gives_logprobs = True  # until it refuses a question for asking
        where = f"judge {self._model!r} at {self._client.base_url}"
        self._faults = ErrorMapper(
            where=where,
            section="judge",
            key=key,
            key_env=api_key_variable(config) or "the variable that judge.api_key_env names",
            timeout_s=config.timeout_s,
            connect_s=connect_s,
        )
        self.window = ContextWindow(self._client, self._model) if config.kind == "ollama" else None

    @property
    def name(self) -> str:
        return self._model

    @property
    def where(self) -> str:
        """Which judge at which address, for people."""
        return self._faults.where

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        from openai import APIError

        self._check_window(request)
        fields, extra = self._fields(request, temperature)
        fault: JudgeError
        try:
            async with asyncio.timeout(WHOLE * self._timeout_s):
                # By path: `chat.completions.create` takes a fifth of a millisecond to copy the fields by their types.
                body = await next(self._turns).post("/chat/completions", cast_to=str, body=fields | extra)
            answer = self._read(body, request)
        except APIError as error:
            fault = self._faults.of(error)
        except TimeoutError:  # a body that comes in drops is never without a byte for long
            fault = JudgeUnavailable(f"the {self.where} had not answered in full after {WHOLE * self._timeout_s:g} s")
            fault.transient = TransientFailure(timed_out=True)
        else:
            self._spoke = True
            if self.window is not None:
                await self.window.look()
                self._check_window(request)
            return answer
        if request.top_logprobs and self._gives_logprobs and _is_about_logprobs(fault):
            self._gives_logprobs = False
            return await self.complete(request, temperature=temperature)
        raise fault  # outside the except: the library's error holds the request with its headers

    async def models(self) -> tuple[str, ...]:
        """The models that the server lists; empty where it lists none or cannot."""
        from openai import APIError

        try:
            return tuple(sorted([each.id async for each in self._client.with_options(max_retries=0).models.list()]))
        except (APIError, ValueError, LookupError, TypeError, AttributeError):
            return ()

    async def slots(self) -> int | None:
        """How many requests the server works on at once, where it says so, as llama.cpp's does; None elsewhere."""
        from openai import APIError

        root = str(self._client.base_url).rstrip("/").removesuffix("/v1")
        try:
            found: Any = await self._client.with_options(max_retries=0).get(f"{root}/props", cast_to=object)
            slots = found["total_slots"]
        except (APIError, ValueError, LookupError, TypeError):
            return None
        return slots if isinstance(slots, int) and slots > 0 else None

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    def _fields(self, question: ChatRequest, temperature: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """The request's fields, and those that the configuration adds; null there leaves a field out."""
        config, preset = self._config, self._config.preset
        ours: dict[str, Any] = {
            config.length_field or preset.length_field: question.max_tokens + config.thinking_tokens,
            "temperature": temperature,
        }
        if question.top_logprobs and self._gives_logprobs:
            ours |= {"logprobs": True, "top_logprobs": question.top_logprobs}
        added = {name: value for name, value in config.extra_body.items() if value is not None}
        if temperature == 0 and preset.greedy:
            del ours["temperature"]
            added = {**preset.greedy, **added}
        fields = {name: value for name, value in ours.items() if name not in config.extra_body}
        system = question.system_prompt(config.system)
        messages = [{"role": "system", "content": _sendable(system)}] if system else []
        messages.append({"role": "user", "content": _sendable(question.text)})
        return {**fields, "model": self._model, "messages": messages}, added

    def _read(self, body: str, question: ChatRequest) -> ChatReply:
        try:
            reply = json.loads(body)
            choice = reply["choices"][0]
            message = choice["message"]
            text, finish = message.get("content") or "", choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._no_answer(body) from None
        if finish in _FILTERED:
            raise RequestRefused(self._faults.clean(f"the {self.where} withheld its answer ({finish})"))
        if not text and message.get("refusal"):
            raise RequestRefused(self._faults.clean(f"the {self.where} declined: {message['refusal']}"))
        if isinstance(text, list):  # of parts
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
        if not isinstance(text, str):
            raise self._no_answer(body)
        if is_filter_notice(text):
            raise RequestRefused(self._faults.clean(f"the {self.where} withheld its answer: {text}"))
        if question.top_logprobs:
            text = with_logprobs(text, choice.get("logprobs"))
        text = prepend_reasoning(_thought(message), text)
        usage = _usage(reply.get("usage"))
        return ChatReply(_sendable(self._faults.hide_key(text)), str(finish), usage, str(reply.get("model") or ""))

    def _no_answer(self, body: str) -> JudgeError:
        """A success without an answer in it: an error that came as one, or a slip of a server that speaks otherwise."""
        status = reported_status(body)
        if status is not None:
            return self._faults.of_status(status, body)
        fault = self._faults.no_protocol(body)
        fault.transient = TransientFailure() if self._spoke else None  # the wrong address never spoke
        return fault

    def _check_window(self, question: ChatRequest) -> None:
        """Raises JudgeRefused for a prompt of which Ollama would read only a part."""
        room = self.window.tokens if self.window is not None else None
        needed = estimate_tokens(question.system_prompt(self._config.system) + question.text)
        wanted = needed + question.max_tokens + self._config.thinking_tokens
        if room is not None and needed > room:
            raise JudgeRefused(
                f"the {self.where} reads {room:,} tokens of a prompt and cuts the rest off without a word; this one "
                f"({question.template}) has about {needed:,}: {WINDOW_ADVICE.format(wanted=2 ** wanted.bit_length())}"
            )


def _is_about_logprobs(fault: JudgeError) -> bool:
    return isinstance(fault, JudgeRefused) and "logprob" in str(fault).lower()


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be sent


def _thought(message: dict[str, Any]) -> str:
    """What servers that take thoughts apart put beside the answer: vLLM, SGLang, Zhipu, Ollama, DeepSeek, …"""
    found = message.get("reasoning_content") or message.get("reasoning")
    return found if isinstance(found, str) else ""


def _usage(said: Any) -> TokenUsage:
    if not isinstance(said, dict):
        return TokenUsage()
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return TokenUsage(_count(said.get("prompt_tokens")), _count(said.get("completion_tokens")), _count(cached))


def _count(said: Any) -> int:
    """A number of tokens; 0 for what can be none."""
    return said if isinstance(said, int) and 0 <= said < 2**40 else 0


def _with_own_pool(client: "AsyncOpenAI") -> "AsyncOpenAI":
    from openai import DefaultAsyncHttpxClient

    return client.with_options(http_client=DefaultAsyncHttpxClient(base_url=client.base_url, timeout=client.timeout))


CONNECT_S = 10.0  # a server that is there takes a connection at once, however long it thinks about an answer
WHOLE = 10  # times timeout_s, for a whole answer
# Each request looks at every idle connection of its pool: several small pools cost less than one large one.
POOL, MOST_POOLS = 16, 8
_FILTERED = ("content_filter", "sensitive", "refusal")
