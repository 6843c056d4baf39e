"""What a failed call to a judge means: is it down, does it refuse us, is it no such server, or does it decline one
question? Every message names the judge and what to do, and none holds the key.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from longreward.errors import AnswerRefused, JudgeError, JudgeProtocolError, JudgeRefused, JudgeUnavailable


@dataclass(frozen=True, repr=False)
class Faults:
    """Puts the faults of one judge into words."""

    where: str  # "judge 'm' at http://…"
    key: str | None
    key_env: str | None
    timeout_s: float
    connect_s: float

    def of_error(self, error: Exception) -> JudgeError:
        """Of an error that the `openai` library raised after its retries."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APITimeoutError) and type(error.__cause__).__name__ == "ConnectTimeout":
            return JudgeUnavailable(
                f"no connection to the {self.where} within {self.connect_s:g} s; is the address right?"
            )
        if isinstance(error, APITimeoutError):
            return JudgeUnavailable(
                f"the {self.where} did not answer within {self.timeout_s:g} s; "
                "is it overloaded? judge.timeout_s and judge.max_concurrency can be changed"
            )
        if isinstance(error, APIConnectionError):
            cause = self.clean(str(error.__cause__ or error))
            return JudgeUnavailable(f"no connection to the {self.where}: {cause}; is the server running?")
        if isinstance(error, APIStatusError):
            return self._of_status(error.status_code, error.response.text)
        return JudgeProtocolError(self.clean(f"the {self.where} gave no usable reply: {error}"))

    def no_protocol(self, body: str) -> JudgeProtocolError:
        """Of a body that is no chat completion."""
        got = self.clean(body)[:80] or "an empty body"
        return JudgeProtocolError(
            f"the {self.where} does not answer in the OpenAI chat protocol (got: {got}); "
            "does judge.base_url end in /v1?"
        )

    def refusal(self, why: str) -> AnswerRefused:
        """Of one question that the judge declines."""
        return AnswerRefused(self.clean(f"the {self.where} {why}"))

    def clean(self, text: str) -> str:
        """The text on one line, of bearable length, without the key."""
        return self.hide_key(" ".join(text.split()))[:300]

    def hide_key(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self.key, "***") if self.key else text

    def _of_status(self, status: int, body: str) -> JudgeError:
        said = self.clean(_message(body))
        codes = _codes(body)
        if codes & _FILTER_CODES:
            return AnswerRefused(f"the {self.where} declined the question (content filter): {said}")
        too_long = codes & _LENGTH_CODES or (_TOO_LONG.search(said) and not _BAD_FIELD.search(said))
        if status == 413 or (status in (400, 422) and too_long):
            return AnswerRefused(f"the question is too long for the {self.where}: {said}")
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
            return f"check the key in {self.key_env} (it {state})" if self.key_env else "set judge.api_key_env"
        if status == 404:
            return "check judge.model, and whether judge.base_url should end in /v1"
        if "max_completion_tokens" in said:
            return "set judge.length_field to max_completion_tokens"
        if "temperature" in said:
            return 'this model takes no temperature of ours: set judge.extra_body to {"temperature": null}'
        return "check judge.model and judge.extra_body"


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
_QUOTA_CODES = {"insufficient_quota", "1113"}  # OpenAI; Zhipu, whose empty account answers 429
_TOO_LONG = re.compile(r"context (?:length|window)|maximum (?:model )?(?:length|input)|too (?:long|many tokens)", re.I)
_BAD_FIELD = re.compile(r"unsupported (?:parameter|value)", re.I)
