"""A judge behind any server that speaks the OpenAI chat protocol, asked through the `openai` library.

The library retries what may pass (no connection, a timeout, 408, 409, 429, 5xx) with backoff or as Retry-After says;
what stays is told apart here: is the judge down, does it refuse us, is it no such server, or does it decline one
question?
"""

import json
import re
from typing import Any

from longreward.errors import (
    AnswerRefused,
    JudgeError,
    JudgeProtocolError,
    JudgeRefused,
    JudgeUnavailable,
)
from longreward.judging.chat import Answer, Question, Usage
from longreward.judging.config import JudgeConfig
from longreward.judging.keys import key_of


class HttpJudge:
    """A ChatModel over HTTP. The key comes from the environment and appears in no error, answer or repr."""

    def __init__(self, config: JudgeConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None, "JudgeConfig holds kind http to a model"
        self._model = config.model
        self._key = key_of(config)
        self._env = config.api_key_env
        self._extra = config.extra_body
        self._timeout_s = config.timeout_s
        self._connect_s = min(config.timeout_s, CONNECT_S)
        self._client = AsyncOpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",  # the library insists on one; servers without keys ignore it
            timeout=Timeout(config.timeout_s, connect=self._connect_s),
            max_retries=config.max_retries,
        )
        self._where = f"judge {self._model!r} at {self._client.base_url}"

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
            fault = self._fault(error)
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
            raise self._no_protocol(body) from None
        if finish in _FILTERED:
            raise AnswerRefused(self._clean(f"the {self._where} withheld its answer ({finish})"))
        if not text and message.get("refusal"):
            raise AnswerRefused(self._clean(f"the {self._where} declined: {message['refusal']}"))
        if not isinstance(text, str):  # a list of parts
            text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
        return Answer(self._hide_key(text), str(finish), _usage(reply.get("usage")), str(reply.get("model") or ""))

    def _fault(self, error: Exception) -> JudgeError:
        """What a failed call means, in words that name the judge and never hold the key."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APITimeoutError) and type(error.__cause__).__name__ == "ConnectTimeout":
            return JudgeUnavailable(
                f"no connection to the {self._where} within {self._connect_s:g} s; is the address right?"
            )
        if isinstance(error, APITimeoutError):
            return JudgeUnavailable(
                f"the {self._where} did not answer within {self._timeout_s:g} s; "
                "is it overloaded? judge.timeout_s and judge.max_concurrency can be changed"
            )
        if isinstance(error, APIConnectionError):
            cause = self._clean(str(error.__cause__ or error))
            return JudgeUnavailable(f"no connection to the {self._where}: {cause}; is the server running?")
        if isinstance(error, APIStatusError):
            return self._status_fault(error.status_code, error.response.text)
        return JudgeProtocolError(self._clean(f"the {self._where} gave no usable reply: {error}"))

    def _status_fault(self, status: int, body: str) -> JudgeError:
        said = self._clean(_message(body))
        codes = _codes(body)
        if codes & _FILTER_CODES:
            return AnswerRefused(f"the {self._where} declined the question (content filter): {said}")
        if status == 413 or (status in (400, 422) and (codes & _LENGTH_CODES or _TOO_LONG.search(said))):
            return AnswerRefused(f"the question is too long for the {self._where}: {said}")
        if "insufficient_quota" in codes:
            return JudgeRefused(f"the {self._where} has no quota left: {said}")
        if status in (408, 409, 429) or status >= 500:
            return JudgeUnavailable(f"the {self._where} answered {status} to every retry: {said}")
        if body.lstrip().startswith("<"):
            return self._no_protocol(body)
        return JudgeRefused(f"the {self._where} answered {status}: {said}; {self._advice(status)}")

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            state = "was sent" if self._key else "is not set"
            return f"check the key in {self._env} (it {state})"
        if status == 404:
            return "check judge.model, and whether judge.base_url should end in /v1"
        return "check judge.model and judge.extra_body"

    def _no_protocol(self, body: str) -> JudgeProtocolError:
        got = self._clean(body)[:80] or "an empty body"
        return JudgeProtocolError(
            f"the {self._where} does not answer in the OpenAI chat protocol (got: {got}); "
            "does judge.base_url end in /v1?"
        )

    def _clean(self, text: str) -> str:
        """The text on one line, of bearable length, without the key."""
        return self._hide_key(" ".join(text.split()))[:300]

    def _hide_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _usage(said: Any) -> Usage:
    if not isinstance(said, dict):
        return Usage()
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(int(said.get("prompt_tokens") or 0), int(said.get("completion_tokens") or 0), int(cached or 0))


def _error_object(body: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    found = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    return found if isinstance(found, dict) else {"message": str(found)}


def _message(body: str) -> str:
    found = _error_object(body)
    return str(found.get("message") or found.get("detail") or body or "an empty body")


def _codes(body: str) -> set[str]:
    found = _error_object(body)
    inner = found.get("innererror")
    objects = [found, inner if isinstance(inner, dict) else {}]
    return {str(each[name]) for each in objects for name in ("code", "type") if each.get(name)}


CONNECT_S = 10.0  # a server that is there takes a connection at once, however long it thinks about an answer
_FILTERED = ("content_filter", "sensitive", "refusal")
# OpenAI and Azure, Zhipu, Alibaba
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "ResponsibleAIPolicyViolation",
    "1301",
    "data_inspection_failed",
    "DataInspectionFailed",
}
_LENGTH_CODES = {"context_length_exceeded", "string_above_max_length"}
_TOO_LONG = re.compile(r"context (?:length|window)|maximum (?:model )?(?:length|input)|too (?:long|many tokens)", re.I)
