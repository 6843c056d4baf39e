"""A judge behind any server that speaks the OpenAI chat protocol, asked through the `openai` library.

The library retries what may pass (no connection, a timeout, 408, 409, 429, 5xx) with backoff or as Retry-After says;
what stays is told apart in `longreward.judging.faults`.
"""

import json
from typing import Any

from longreward.errors import AnswerRefused, JudgeError
from longreward.judging.chat import Answer, Question, Usage
from longreward.judging.config import JudgeConfig
from longreward.judging.faults import Faults
from longreward.judging.keys import key_of


class HttpJudge:
    """A ChatModel over HTTP. The key comes from the environment and appears in no error, answer or repr."""

    def __init__(self, config: JudgeConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None, "JudgeConfig holds kind http to a model"
        self._model = config.model
        self._key = key_of(config)
        self._extra = config.extra_body
        connect_s = min(config.timeout_s, CONNECT_S)
        self._client = AsyncOpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",  # the library insists on one; servers without keys ignore it
            timeout=Timeout(config.timeout_s, connect=connect_s),
            max_retries=config.max_retries,
        )
        self._where = f"judge {self._model!r} at {self._client.base_url}"
        self._faults = Faults(
            where=self._where,
            section="judge",
            key=self._key,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            connect_s=connect_s,
        )

    @property
    def name(self) -> str:
        return self._model

    async def answer(self, question: Question, *, temperature: float) -> Answer:
        from openai import APIError

        fields, extra = self._fields(question, temperature)
        fault: JudgeError
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**fields, extra_body=extra)
            return self._read(raw.http_response.text)
        except APIError as error:
            fault = self._faults.of(error)
        raise fault  # outside the except: the library's error holds the request with its headers

    async def close(self) -> None:
        await self._client.close()

    def _fields(self, question: Question, temperature: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """The request's fields, and those that the configuration adds; null there leaves a field out."""
        text = question.text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be sent
        settings = {"temperature": temperature, "max_tokens": question.max_tokens}
        fields: dict[str, Any] = {name: value for name, value in settings.items() if name not in self._extra}
        fields |= {"model": self._model, "messages": [{"role": "user", "content": text}]}
        return fields, {name: value for name, value in self._extra.items() if value is not None}

    def _read(self, body: str) -> Answer:
        try:
            reply = json.loads(body)
            choice = reply["choices"][0]
            message = choice["message"]
            text, finish = message.get("content") or "", choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._faults.no_protocol(body) from None
        if finish in _FILTERED:
            raise AnswerRefused(self._faults.clean(f"the {self._where} withheld its answer ({finish})"))
        if not text and message.get("refusal"):
            raise AnswerRefused(self._faults.clean(f"the {self._where} declined: {message['refusal']}"))
        if not isinstance(text, str):  # a list of parts
            text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
        return Answer(
            self._faults.hide_key(text), str(finish), _usage(reply.get("usage")), str(reply.get("model") or "")
        )


def _usage(said: Any) -> Usage:
    if not isinstance(said, dict):
        return Usage()
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(int(said.get("prompt_tokens") or 0), int(said.get("completion_tokens") or 0), int(cached or 0))


CONNECT_S = 10.0  # a server that is there takes a connection at once, however long it thinks about an answer
_FILTERED = ("content_filter", "sensitive", "refusal")
