"""Classification of failed calls."""

import email.utils
import json

import pytest

from longreward.errors import (
    JudgeError,
    JudgeProtocolError,
    JudgeRefused,
    PromptTooLong,
    RequestRefused,
    TransientFailure,
)
from longreward.utils.http_errors import ErrorMapper, is_filter_notice, retry_after_s

MAPPER = ErrorMapper(server="judge", section="judge", key=None, key_env="K", timeout_s=1, connect_s=1)


# Gemini sends a list, and the pause in the body.
GEMINI_QUOTA = """[{"error": {"code": 429, "message": "You exceeded your current quota. Please retry in 36.5s.",
  "status": "RESOURCE_EXHAUSTED",
  "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}]}}]"""


@pytest.mark.parametrize(
    ("status", "body", "headers", "transient"),
    [
        (408, "{}", {}, TransientFailure(timed_out=True)),
        (504, "{}", {}, TransientFailure(timed_out=True)),
        (429, "{}", {}, TransientFailure(throttled=True)),
        (529, "{}", {}, TransientFailure(throttled=True)),
        (429, "{}", {"retry-after": "3"}, TransientFailure(throttled=True, retry_after_s=3.0)),
        (503, "<html>", {"retry-after-ms": "1500"}, TransientFailure(throttled=True, retry_after_s=1.5)),
        (500, "{}", {}, TransientFailure()),
        (502, "<html>", {"retry-after": "soon"}, TransientFailure()),
        (500, "{}", {"x-should-retry": "false"}, None),
        (429, "{}", {"retry-after": "86400"}, None),  # a day
        (429, '{"error": {"code": "insufficient_quota"}}', {}, None),
        (401, "{}", {}, None),
        (429, GEMINI_QUOTA, {}, TransientFailure(throttled=True, retry_after_s=36.5)),
    ],
)
def test_transient_statuses(
    status: int, body: str, headers: dict[str, str], transient: TransientFailure | None
) -> None:
    assert MAPPER.from_status(status, body, headers).transient == transient


@pytest.mark.parametrize(
    ("status", "body", "error", "advice"),
    [
        (401, '{"error": {"message": "bad key"}}', JudgeRefused, "check the key in K (it is not set)"),
        (403, '{"error": {"message": "not yours"}}', JudgeRefused, "not yours"),
        (404, '{"error": {"message": "no model m"}}', JudgeRefused, "check judge.model"),
        (404, '{"detail": "Not Found"}', JudgeRefused, "should end in /v1"),
        (400, '{"error": {"message": "bad field"}}', JudgeRefused, "bad field"),
        (429, '{"error": {"message": "pay", "code": "insufficient_quota"}}', JudgeRefused, "no quota left"),
        (429, '{"error": {"code": "1113", "message": "account in arrears"}}', JudgeRefused, "no quota left"),
        (
            400,
            '{"error": {"message": "Unsupported parameter: \'max_tokens\'. Use \'max_completion_tokens\' instead."}}',
            JudgeRefused,
            "set judge.length_field to max_completion_tokens",
        ),
        (
            400,
            '{"error": {"message": "Unsupported value: \'temperature\' does not support 0.01 with this model."}}',
            JudgeRefused,
            'set judge.extra_body to {"temperature": null}',
        ),
        (
            400,
            '{"error": {"message": "`temperature` is deprecated for this model."}}',
            JudgeRefused,
            '{"temperature": null}',
        ),
        (404, "<html>nothing here</html>", JudgeProtocolError, "does judge.base_url end in /v1?"),
        (400, '{"error": {"code": "1261", "message": "Prompt exceeds"}}', PromptTooLong, "too long"),
        (400, '{"error": {"message": "maximum context length is 10 tokens", "code": 400}}', PromptTooLong, "too long"),
        (413, "{}", PromptTooLong, "too long"),
        (400, '{"error": {"message": "filtered", "code": "content_filter"}}', RequestRefused, "content filter"),
        (400, '{"error": {"code": "1301", "message": "unsafe"}}', RequestRefused, "content filter"),
        (400, '[{"error": {"code": 400, "message": "API key not valid."}}]', JudgeRefused, "check the key in K"),
        (
            400,
            '{"error": {"code": "x", "message": "y", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}',
            RequestRefused,
            "content filter",
        ),
    ],
)
def test_errors_and_advice_of_final_statuses(status: int, body: str, error: type[JudgeError], advice: str) -> None:
    result = MAPPER.from_status(status, body)
    assert type(result) is error
    assert advice in str(result)


def test_retry_after_may_be_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_780_000_000.0
    monkeypatch.setattr("longreward.utils.http_errors.time.time", lambda: now)
    assert retry_after_s({"retry-after": email.utils.formatdate(now + 60, usegmt=True)}) == 60.0
    past = email.utils.formatdate(now - 60, usegmt=True)
    for value in (past, "-1", "inf", "nan", "", "0"):
        assert retry_after_s({"retry-after": value}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", True),
        ("系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语。", True),
        ("1. Keld has a content management policy.", False),
        ("Rating: [[7]]", False),
        ("", False),
    ],
)
def test_filter_notice(text: str, expected: bool) -> None:
    assert is_filter_notice(text) == expected


@pytest.mark.parametrize(
    ("status", "error", "window"),
    [
        # llama.cpp, SGLang, Text Generation Inference.
        (
            400,
            {
                "code": 400,
                "message": "request (6030 tokens) exceeds the available context size (4096 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_ctx": 4096,
            },
            "context size (4096 tokens)",
        ),
        (
            400,
            {
                "message": "The input (6030 tokens) is longer than the context length (4096 tokens).",
                "code": 400,
            },
            "context length (4096 tokens)",
        ),
        (  # Gemini
            400,
            {
                "code": 400,
                "message": "The token count (6030) exceeds the maximum number of tokens allowed (4096).",
            },
            "allowed (4096)",
        ),
        (
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 6030 `inputs` tokens",
            "must be <= 4096",
        ),
    ],
)
def test_prompts_above_context_window(status: int, error: object, window: str) -> None:
    result = MAPPER.from_status(status, json.dumps({"error": error}))
    assert type(result) is PromptTooLong
    assert window in str(result)
