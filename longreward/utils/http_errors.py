"""What a failed call to a server of the OpenAI protocol means: is it down, does it refuse us, is it no such server, or
does it decline this one question?
"""

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longreward.errors import (
    JudgeError,
    JudgeProtocolError,
    JudgeRefused,
    JudgeUnavailable,
    RequestRefused,
    TransientFailure,
)


@dataclass(frozen=True)
class ErrorMapper:
    """Turns what the `openai` library raises into the JudgeError family; the key is in no message and no repr."""

    where: str  # as "judge 'm' at http://localhost:8000/v1/"
    section: str  # of params.yaml, for advice
    key: str | None = field(repr=False)
    key_env: str
    timeout_s: float
    connect_s: float
    protocol: str = "chat"
    asked: str = "question"  # what one call is about

    def of(self, error: Exception) -> JudgeError:
        """What a failed call means, in words that name the server and never hold the key; and whether it may pass."""
        from openai import APIConnectionError, APIStatusError

        if isinstance(error, APIStatusError):
            return self.of_status(error.status_code, error.response.text, error.response.headers)
        fault = self._of_no_reply(error)
        fault.transient = _passing(error) if isinstance(error, APIConnectionError) else None
        fault.may_be_billed = fault.may_be_billed or _was_sent(error)
        return fault

    def _of_no_reply(self, error: Exception) -> JudgeError:
        from openai import APIConnectionError, APITimeoutError

        if isinstance(error, APITimeoutError) and type(error.__cause__).__name__ == "ConnectTimeout":
            return JudgeUnavailable(
                f"no connection to the {self.where} within {self.connect_s:g} s; is the address right?"
            )
        if isinstance(error, APITimeoutError):
            return JudgeUnavailable(
                f"the {self.where} did not answer within {self.timeout_s:g} s; "
                f"is it overloaded? {self.section}.timeout_s and {self.section}.max_concurrency can be changed"
            )
        if isinstance(error, APIConnectionError):
            cause = self.clean(str(error.__cause__ or error))
            return JudgeUnavailable(f"no connection to the {self.where}: {cause}; is the server running?")
        return JudgeProtocolError(self.clean(f"the {self.where} gave no usable reply: {error}"))

    def of_status(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> JudgeError:
        """What a reply with this status means, and whether it may pass."""
        fault = self._of_status(status, body)
        if isinstance(fault, JudgeUnavailable) and (headers or {}).get("x-should-retry") != "false":
            wait = retry_after_s(headers or {})
            if wait is not None and wait > LONGEST_WAIT_S:
                return JudgeUnavailable(f"{fault}; it wants no call for {wait:,.0f} s")
            fault.transient = TransientFailure(
                throttled=status in THROTTLED, retry_after_s=wait, timed_out=status in TIMED_OUT
            )
        return fault

    def _of_status(self, status: int, body: str) -> JudgeError:
        said = self.clean(_message(body))
        codes = _codes(body)
        if codes & _FILTER_CODES:
            return RequestRefused(f"the {self.where} declined the {self.asked} (content filter): {said}")
        too_long = codes & _LENGTH_CODES or (_TOO_LONG.search(said) and not _REFUSED_FIELD.search(said))
        if status == 413 or (status in (400, 422) and too_long):
            return RequestRefused(f"the {self.asked} is too long for the {self.where}: {said}")
        if codes & _QUOTA_CODES:
            return JudgeRefused(f"the {self.where} has no quota left: {said}")
        if status in (408, 409, 429) or status >= 500:
            return JudgeUnavailable(f"the {self.where} answered {status} to every retry: {said}")
        if body.lstrip().startswith("<"):
            return self.no_protocol(body)
        return JudgeRefused(f"the {self.where} answered {status}: {said}; {self._advice(status, said)}")

    def _advice(self, status: int, said: str) -> str:
        if status in (401, 403):
            state = "was sent" if self.key else "is not set"
            return f"check the key in {self.key_env} (it {state})"
        if status == 404:
            return f"check {self.section}.model, and whether {self.section}.base_url should end in /v1"
        if "max_completion_tokens" in said and self.section == "judge":
            return "set judge.length_field to max_completion_tokens"
        if "temperature" in said:
            return f'where the model takes no temperature, set {self.section}.extra_body to {{"temperature": null}}'
        return f"check {self.section}.model and {self.section}.extra_body"

    def no_protocol(self, body: str) -> JudgeProtocolError:
        """Something was said that is not in the protocol."""
        got = self.clean(body)[:80] or "an empty body"
        return JudgeProtocolError(
            f"the {self.where} does not answer in the OpenAI {self.protocol} protocol (got: {got}); "
            f"does {self.section}.base_url end in /v1?"
        )

    def clean(self, text: str) -> str:
        """The text on one line, of bearable length, without the key."""
        return self.hide_key(" ".join(text.split()))[:300]

    def hide_key(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self.key, "***") if self.key else text


def _passing(error: Exception) -> TransientFailure:
    """What a request without a reply says of the server's load."""
    from openai import APITimeoutError

    cause = type(error.__cause__).__name__
    if isinstance(error, APITimeoutError):
        # A server whose queue of connections is full accepts none in time.
        return TransientFailure(disconnected=True) if cause == "ConnectTimeout" else TransientFailure(timed_out=True)
    # A refused connection (ConnectError) is a server that is not running, which fewer calls do not help.
    return TransientFailure(disconnected=_was_sent(error))


def _was_sent(error: Exception) -> bool:
    """Whether the server may have been at work on what then got no answer: a slow one, or one that hung up."""
    from openai import APIConnectionError

    return isinstance(error, APIConnectionError) and not type(error.__cause__).__name__.startswith(("Connect", "Pool"))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server wants to be left alone, from now; None where it does not say, or nothing sensible."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = headers.get(name) or ""
        try:
            wait = float(said) * unit
        except ValueError:
            date = email.utils.parsedate_tz(said)
            wait = email.utils.mktime_tz(date) - time.time() if date is not None else math.nan
        if 0 < wait < math.inf:
            return wait
    return None


def reported_status(body: str) -> int | None:
    """The status in an error object that came with 200, as routers send it; None where there is no such object."""
    try:
        parsed = json.loads(body)
        error = parsed.get("error") if not parsed.get("choices") else None
    except (ValueError, AttributeError, RecursionError):
        return None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def is_filter_notice(text: str) -> bool:
    """Whether a filter wrote this in the model's place, although the server says that the answer is whole."""
    return len(text) < 500 and _NOTICE.match(text) is not None


def _error_object(body: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
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


THROTTLED = (429, 503, 529)  # 529: Anthropic's "overloaded"
TIMED_OUT = (408, 504)  # said by the server, or by a gateway before it
LONGEST_WAIT_S = 600.0  # a server that asks for more is as good as down: the failure says so instead
# OpenAI and Azure, Zhipu, Alibaba
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "ResponsibleAIPolicyViolation",
    "1301",
    "data_inspection_failed",
    "DataInspectionFailed",
}
_LENGTH_CODES = {"context_length_exceeded", "string_above_max_length", "1261"}
_QUOTA_CODES = {"insufficient_quota", "1113"}  # OpenAI; Zhipu, where an empty account answers 429
_TOO_LONG = re.compile(r"context (?:length|window)|maximum (?:model )?(?:length|input)|too (?:long|many tokens)", re.I)
_REFUSED_FIELD = re.compile(r"unsupported (?:parameter|value)", re.I)
_NOTICE = re.compile(
    r"\W*(?:the (?:response|prompt|request) was (?:filtered|blocked) (?:due to|by)|content exists risk"
    r"|(?:input|output) (?:text )?data may contain inappropriate content"
    r"|系统检测到输入或生成内容可能包含不安全或敏感内容)",
    re.IGNORECASE,
)
