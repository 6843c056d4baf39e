"""A judge behind any server that speaks the OpenAI chat protocol, asked through the `openai` library.

One call is one request: what failed is told apart in `faults.py`, and tried again by `calling.py` where it may pass (no
connection, a timeout, 408, 409, 429, 5xx, a stray reply without an answer). In what the servers differ stands in
`presets.py`.
"""

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage, estimated_tokens, with_logprobs
from longreward.errors import JudgeError, JudgeRefused, JudgeUnavailable, RequestRefused, TransientError
from longreward.judge.api_keys import key_of, key_variable
from longreward.judge.config import JudgeConfig
from longreward.judge.context_window import ADVICE, ContextWindow
from longreward.judge.reasoning import with_thought
from longreward.utils.http_errors import ErrorMapper, is_notice, reported_status

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class HttpJudge:
    """A ChatModel over HTTP. The key comes from the environment and appears in no error, answer or repr."""

    def __init__(self, config: JudgeConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None, "JudgeConfig holds every kind but offline to a model"
        self._config = config
        self._model = config.model
        key = key_of(config)
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
            key_env=key_variable(config) or "the variable that judge.api_key_env names",
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

    async def answer(self, question: ChatRequest, *, temperature: float) -> ChatReply:
        from openai import APIError

        self._check_window(question)
        fields, extra = self._fields(question, temperature)
        fault: JudgeError
        try:
            async with asyncio.timeout(WHOLE * self._timeout_s):
                # By path: `chat.completions.create` takes a fifth of a millisecond to copy the fields by their types.
                body = await next(self._turns).post("/chat/completions", cast_to=str, body=fields | extra)
            answer = self._read(body, question)
        except APIError as error:
            fault = self._faults.of(error)
        except TimeoutError:  # a body that comes in drops is never without a byte for long
            fault = JudgeUnavailable(f"the {self.where} had not answered in full after {WHOLE * self._timeout_s:g} s")
            fault.passing = TransientError(timed_out=True)
        else:
            self._spoke = True
            if self.window is not None:
                await self.window.look()
                self._check_window(question)
            return answer
        if question.top_logprobs and self._gives_logprobs and _is_about_logprobs(fault):
            self._gives_logprobs = False
            return await self.answer(question, temperature=temperature)
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
        system = question.system_under(config.system)
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
        if is_notice(text):
            raise RequestRefused(self._faults.clean(f"the {self.where} withheld its answer: {text}"))
        if question.top_logprobs:
            text = with_logprobs(text, choice.get("logprobs"))
        text = with_thought(_thought(message), text)
        usage = _usage(reply.get("usage"))
        return ChatReply(_sendable(self._faults.hide_key(text)), str(finish), usage, str(reply.get("model") or ""))

    def _no_answer(self, body: str) -> JudgeError:
        """A success without an answer in it: an error that came as one, or a slip of a server that speaks otherwise."""
        status = reported_status(body)
        if status is not None:
            return self._faults.of_status(status, body)
        fault = self._faults.no_protocol(body)
        fault.passing = TransientError() if self._spoke else None  # the wrong address never spoke
        return fault

    def _check_window(self, question: ChatRequest) -> None:
        """Raises JudgeRefused for a prompt of which Ollama would read only a part."""
        room = self.window.tokens if self.window is not None else None
        needed = estimated_tokens(question.system_under(self._config.system) + question.text)
        wanted = needed + question.max_tokens + self._config.thinking_tokens
        if room is not None and needed > room:
            raise JudgeRefused(
                f"the {self.where} reads {room:,} tokens of a prompt and cuts the rest off without a word; this one "
                f"({question.template}) has about {needed:,}: {ADVICE.format(wanted=2 ** wanted.bit_length())}"
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
