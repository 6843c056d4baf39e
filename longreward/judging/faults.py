"""What a failed call to a server of the OpenAI protocol means: is it down, does it refuse us, is it no such server, or
does it decline this one question?
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from longreward.errors import AnswerRefused, JudgeError, JudgeProtocolError, JudgeRefused, JudgeUnavailable


@dataclass(frozen=True)
class Faults:
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
        """What a failed call means, in words that name the server and never hold the key."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

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
        if isinstance(error, APIStatusError):
            return self.of_status(error.status_code, error.response.text)
        return JudgeProtocolError(self.clean(f"the {self.where} gave no usable reply: {error}"))

    def of_status(self, status: int, body: str) -> JudgeError:
        """What a reply with this status means."""
        said = self.clean(_message(body))
        codes = _codes(body)
        if codes & _FILTER_CODES:
            return AnswerRefused(f"the {self.where} declined the {self.asked} (content filter): {said}")
        too_long = codes & _LENGTH_CODES or (_TOO_LONG.search(said) and not _REFUSED_FIELD.search(said))
        if status == 413 or (status in (400, 422) and too_long):
            return AnswerRefused(f"the {self.asked} is too long for the {self.where}: {said}")
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
