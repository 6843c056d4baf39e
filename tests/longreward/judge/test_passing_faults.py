"""Which failures may pass, and what a reply that is no answer means."""

import email.utils
from typing import Any

import pytest

from longreward.errors import JudgeProtocolError, JudgeRefused, JudgeUnavailable, RequestRefused, TransientFailure
from longreward.judge import ChatRequest, JudgeConfig
from longreward.judge.http_client import HttpJudge
from longreward.judge.retry import backoff_s
from longreward.utils.http_errors import ErrorMapper, is_filter_notice, retry_after_s

FAULTS = ErrorMapper(server="judge", section="judge", key=None, key_env="K", timeout_s=1, connect_s=1)
QUESTION = ChatRequest("helpfulness", {}, "q", "h", 9)


@pytest.mark.parametrize(
    ("status", "body", "headers", "passing"),
    [
        (429, "{}", {}, TransientFailure(throttled=True)),
        (429, "{}", {"retry-after": "3"}, TransientFailure(throttled=True, retry_after_s=3.0)),
        (503, "<html>", {"retry-after-ms": "1500"}, TransientFailure(throttled=True, retry_after_s=1.5)),
        (500, "{}", {}, TransientFailure()),
        (502, "<html>", {"retry-after": "soon"}, TransientFailure()),
        (500, "{}", {"x-should-retry": "false"}, None),
        (429, "{}", {"retry-after": "86400"}, None),  # a day: the run had better end and say so
        (429, '{"error": {"code": "insufficient_quota"}}', {}, None),
        (401, "{}", {}, None),
    ],
)
def test_a_status_says_whether_to_try_again(
    status: int, body: str, headers: dict[str, str], passing: TransientFailure | None
) -> None:
    assert FAULTS.from_status(status, body, headers).transient == passing


def test_a_date_to_come_back_at_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_780_000_000.0
    monkeypatch.setattr("longreward.utils.http_errors.time.time", lambda: now)
    assert retry_after_s({"retry-after": email.utils.formatdate(now + 60, usegmt=True)}) == 60.0
    past = email.utils.formatdate(now - 60, usegmt=True)
    strange = (past, "-1", "inf", "nan", "", "0")
    assert [retry_after_s({"retry-after": said}) for said in strange] == [None] * len(strange)


def test_pauses_double_up_to_a_bound_with_some_chance_and_no_less_than_is_asked_for() -> None:
    for failures, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (50, 8.0)):
        assert 0.75 * longest <= backoff_s(failures, TransientFailure()) <= longest
    assert backoff_s(1, TransientFailure(retry_after_s=20.0)) == 20.0
    assert backoff_s(1, TransientFailure(throttled=True, retry_after_s=20.0)) == 0.0  # the limiter waits, for all calls


@pytest.mark.parametrize(
    ("reply", "error", "may_pass"),
    [
        ({"error": {"message": "upstream", "code": 502}}, JudgeUnavailable, True),
        ({"error": "overloaded"}, JudgeUnavailable, True),
        ({"error": {"message": "bad key", "code": 401}}, JudgeRefused, False),
        ({"error": {"message": "x", "code": "content_filter"}}, RequestRefused, False),
        ({"choices": []}, JudgeProtocolError, True),
        ({"choices": [{"message": {"content": 7}}]}, JudgeProtocolError, True),
        ({"choices": [{"message": {"content": {"a": 1}}}]}, JudgeProtocolError, True),
    ],
)
async def test_a_success_that_holds_no_answer_is_told_for_what_it_is(
    reply: Any, error: type[Exception], may_pass: bool, serve_chat: Any, completion: Any
) -> None:
    replies = [completion("[[7]]"), reply]
    with serve_chat(lambda request: (200, replies.pop(0))) as server:
        judge = HttpJudge(JudgeConfig(kind="http", base_url=server.url, model="m"))
        assert (await judge.complete(QUESTION, temperature=0)).text == "[[7]]"  # it speaks the protocol
        with pytest.raises(error) as caught:
            await judge.complete(QUESTION, temperature=0)
        assert type(caught.value) is error
        assert (caught.value.transient is not None) == may_pass  # type: ignore[attr-defined]
        await judge.close()


async def test_strange_counts_and_signs_cost_no_answer(serve_chat: Any, completion: Any) -> None:
    usage = {"prompt_tokens": "many", "completion_tokens": 10**30, "prompt_tokens_details": {"cached_tokens": -3}}
    with serve_chat(lambda request: (200, completion("\ud800 [[7]]") | {"usage": usage})) as server:
        judge = HttpJudge(JudgeConfig(kind="http", base_url=server.url, model="m"))
        answer = await judge.complete(QUESTION, temperature=0)
        await judge.close()
    assert answer.text == "? [[7]]"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.cached_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", True),
        ("系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语。", True),
        ("1. Keld has a content management policy.", False),
        ("Rating: [[7]]", False),
        ("", False),
    ],
)
def test_a_filter_s_notice_is_known_by_how_it_opens(text: str, notice: bool) -> None:
    assert is_filter_notice(text) == notice
