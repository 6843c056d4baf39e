"""Map failed calls to a server of the OpenAI protocol to typed errors.

The mapping answers three questions: is the server unavailable, does it refuse our key, model or request format, or does
it decline only this one request? And may the same call succeed later (`JudgeError.transient`)?
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
    PromptTooLong,
    RequestRefused,
    TransientFailure,
)

CONNECT_TIMEOUT_S = 10.0  # a running server accepts a connection at once, however long it computes a reply
OVERLOADED_STATUS = (429, 503, 529)  # 529: Anthropic's "overloaded"
TIMEOUT_STATUS = (408, 504)  # from the server, or from a gateway in front of it
MAX_RETRY_AFTER_S = 600.0  # a server that asks for a longer pause counts as down

# Error codes of OpenAI and Azure, Zhipu, Alibaba.
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "ResponsibleAIPolicyViolation",
    "1301",
    "data_inspection_failed",
    "DataInspectionFailed",
}
# OpenAI, Zhipu, llama.cpp.
_LENGTH_CODES = {"context_length_exceeded", "string_above_max_length", "1261", "exceed_context_size_error"}
_QUOTA_CODES = {"insufficient_quota", "1113"}  # OpenAI; Zhipu, where an empty account answers 429
_TOO_LONG = re.compile(
    r"context (?:length|window|size)|maximum (?:model )?(?:length|input)|too (?:long|many tokens)"
    r"|maximum number of tokens allowed"  # of Gemini
    r"|`max_new_tokens` must be",  # of Text Generation Inference
    re.I,
)
_UNSUPPORTED_FIELD = re.compile(r"unsupported (?:parameter|value)", re.I)
_FILTER_NOTICE = re.compile(
    r"\W*(?:the (?:response|prompt|request) was (?:filtered|blocked) (?:due to|by)|content exists risk"
    r"|(?:input|output) (?:text )?data may contain inappropriate content"
    r"|系统检测到输入或生成内容可能包含不安全或敏感内容)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ErrorMapper:
    """Convert errors of the `openai` library to JudgeErrors. The API key appears in no message and no repr."""

    server: str
    """For messages, such as "judge 'm' at http://localhost:8000/v1/"."""
    section: str
    """The section of params.yaml that describes the server, for advice."""
    key: str | None = field(repr=False)
    key_env: str
    timeout_s: float
    connect_s: float
    protocol: str = "OpenAI chat"
    request_kind: str = "question"
    """What one request contains, for messages."""

    def from_exception(self, error: Exception) -> JudgeError:
        """Convert an exception of the `openai` library."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APIStatusError):
            return self.from_status(error.status_code, error.response.text, error.response.headers)
        if not isinstance(error, APIConnectionError):
            return JudgeProtocolError(self.sanitize(f"the {self.server} gave no usable reply: {error}"))
        cause = type(error.__cause__).__name__
        # httpx raises ConnectError, ConnectTimeout and PoolTimeout before it sends anything. After any other error the
        # server may have worked on the request: it was too slow, or closed the connection.
        was_sent = not cause.startswith(("Connect", "Pool"))
        if not isinstance(error, APITimeoutError):
            message = self.sanitize(str(error.__cause__ or error))
            result = JudgeUnavailable(f"no connection to the {self.server}: {message}; is the server running?")
            # A refused connection (ConnectError) means that the server is not running, which fewer calls do not change.
            result.transient = TransientFailure(disconnected=was_sent)
        elif cause == "ConnectTimeout":
            result = JudgeUnavailable(
                f"no connection to the {self.server} within {self.connect_s:g} s; is the address right?"
            )
            # A server whose queue of connections is full accepts none in time.
            result.transient = TransientFailure(disconnected=True)
        else:
            result = JudgeUnavailable(
                f"the {self.server} did not answer within {self.timeout_s:g} s; "
                f"is it overloaded? {self.section}.timeout_s and {self.section}.max_concurrency can be changed"
            )
            result.transient = TransientFailure(timed_out=True)
        result.may_be_billed = was_sent
        return result

    def from_status(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> JudgeError:
        """Convert a reply with an error status."""
        message, codes = self._parse_error(body)
        if codes & _FILTER_CODES:
            return RequestRefused(f"the {self.server} declined the {self.request_kind} (content filter): {message}")
        # OpenAI also says "maximum ... length" about max_tokens where the model wants max_completion_tokens.
        too_long = codes & _LENGTH_CODES or (_TOO_LONG.search(message) and not _UNSUPPORTED_FIELD.search(message))
        if status == 413 or (status in (400, 422) and too_long):
            return PromptTooLong(f"the {self.request_kind} is too long for the {self.server}: {message}")
        if codes & _QUOTA_CODES:
            return JudgeRefused(f"the {self.server} has no quota left: {message}")
        if status in (408, 409, 429) or status >= 500:
            result = JudgeUnavailable(f"the {self.server} answered {status} to every retry: {message}")
            wait = retry_after_s(headers or {}) or _retry_delay_s(body)
            if wait is not None and wait > MAX_RETRY_AFTER_S:
                return JudgeUnavailable(f"{result}; it wants no call for {wait:,.0f} s")
            if (headers or {}).get("x-should-retry") != "false":
                result.transient = TransientFailure(
                    throttled=status in OVERLOADED_STATUS, retry_after_s=wait, timed_out=status in TIMEOUT_STATUS
                )
            return result
        if body.lstrip().startswith("<"):
            return self.protocol_error(body)
        if status in (401, 403) or "API key" in message:  # Gemini answers 400
            advice = f"check the key in {self.key_env} (it {'was sent' if self.key else 'is not set'})"
        elif status == 404:
            advice = f"check {self.section}.model, and whether {self.section}.base_url should end in /v1"
        elif "max_completion_tokens" in message and self.section == "judge":
            advice = "set judge.length_field to max_completion_tokens"
        elif "temperature" in message:
            advice = f'where the model takes no temperature, set {self.section}.extra_body to {{"temperature": null}}'
        else:
            advice = f"check {self.section}.model and {self.section}.extra_body"
        return JudgeRefused(f"the {self.server} answered {status}: {message}; {advice}")

    def _parse_error(self, body: str) -> tuple[str, set[str]]:
        """Return the message and the error codes in the body of an error reply."""
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            parsed = {}
        parsed = _first(parsed)
        error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
        if not isinstance(error, dict):
            error = {"message": str(error)}
        message = self.sanitize(str(error.get("message") or error.get("detail") or body or "an empty body"))
        inner = error.get("innererror")
        objects = [error, inner if isinstance(inner, dict) else {}]
        return message, {str(source[name]) for source in objects for name in ("code", "type") if source.get(name)}

    def protocol_error(self, body: str) -> JudgeProtocolError:
        """Make the error for a reply that does not follow the protocol."""
        received = self.sanitize(body)[:80] or "an empty body"
        return JudgeProtocolError(
            f"the {self.server} does not answer in the {self.protocol} protocol (got: {received}); "
            f"does {self.section}.base_url end in /v1?"
        )

    def sanitize(self, text: str) -> str:
        """Return the text on one line, of at most 300 characters, without the key."""
        return self.mask_key(" ".join(text.split()))[:300]

    def mask_key(self, text: str) -> str:
        """Replace the key by asterisks."""
        return text.replace(self.key, "***") if self.key else text


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait; None where it does not say, or nothing sensible."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name) or ""
        try:
            wait = float(value) * unit
        except ValueError:
            date = email.utils.parsedate_tz(value)
            wait = email.utils.mktime_tz(date) - time.time() if date is not None else math.nan
        if 0 < wait < math.inf:
            return wait
    return None


def _retry_delay_s(body: str) -> float | None:
    """Return the pause that the body of an error asks for, as Google's `RetryInfo` does; None where there is none."""
    match = re.search(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"', body)
    return float(match[1]) if match else None


def _first(parsed: Any) -> Any:
    """Return the error of a list, which is how Gemini's OpenAI-compatible interface sends one."""
    return parsed[0] if isinstance(parsed, list) and parsed else parsed


def reported_status(body: str) -> int | None:
    """Return the status of an error object that came with HTTP 200, as routers send it; None: there is none."""
    try:
        parsed = _first(json.loads(body))
        error = parsed.get("error") if not parsed.get("choices") else None
    except (ValueError, AttributeError, RecursionError):
        return None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def is_filter_notice(text: str) -> bool:
    """Whether a content filter wrote this text in place of the model, although the status is 200."""
    return len(text) < 500 and _FILTER_NOTICE.match(text) is not None
