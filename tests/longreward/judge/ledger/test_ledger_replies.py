"""What is served from the ledger: readable answers to exactly the same question, and nothing else."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import RequestRefused
from longreward.judge.cached_client import _settings
from longreward.judge.config import JudgeConfig
from longreward.judge.judge import Judge
from longreward.judge.ledger import Exchange, Ledger, request_id

QUESTION = ChatRequest("support", {}, "Is it so?", "h", 512)
CONFIG = JudgeConfig(max_attempts=3)
MODEL = "m"


class Fresh:
    """A model whose answers cannot be mistaken for kept ones."""

    name = MODEL

    def __init__(self) -> None:
        self.calls = 0

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.calls += 1
        return ChatReply("fresh [[5]]")

    async def close(self) -> None:
        pass


def verdict(text: str) -> str | None:
    return text if "[[" in text else None


kept = st.builds(
    Exchange,
    request_id=st.just(request_id(QUESTION, judge=MODEL, revision="", extra={})),
    attempt=st.integers(1, 4),
    temperature=st.sampled_from([0.01, 0.95, 0.5]),
    template=st.just("support"),
    prompt_hash=st.just("h"),
    judge=st.just(MODEL),
    revision=st.just(""),
    reply=st.sampled_from(
        [ChatReply("kept [[7]]"), ChatReply("no verdict"), ChatReply(""), ChatReply("cut [[", "length")]
    ),
    outcome=st.sampled_from(["readable", "unreadable", "refused"]),
    reason=st.just("why"),
).map(lambda each: replace(each, reason=None) if each.outcome == "readable" else each)


@settings(max_examples=400, deadline=None)
@given(st.lists(kept, max_size=6))
def test_only_an_answer_that_can_be_read_is_served_and_what_cannot_be_is_asked_again(exchanges: list[Exchange]) -> None:
    async def ask() -> tuple[Any, int]:
        model, ledger = Fresh(), Ledger(None)
        ledger.put_many(exchanges)
        async with Judge.from_model(model, CONFIG, ledger) as judge:
            return await judge.query(QUESTION, verdict), model.calls

    reading, calls = asyncio.run(ask())
    first: dict[tuple[int, float], Exchange] = {}
    for each in exchanges:
        first.setdefault((each.attempt, each.temperature), each)
    # Others are of temperatures that this judge does not ask at. How an answer was read once does not matter: another
    # version may read more.
    ours = {(1, 0.01), *((attempt, temperature) for attempt in (2, 3, 4) for temperature in (0.01, 0.95))}
    usable = [exchange for at, exchange in first.items() if at in ours]
    served = {each.reply.text for each in usable if each.outcome != "refused" and verdict(each.reply.text)}
    refused = any(each.outcome == "refused" for each in usable)
    assert (reading.value is None) == (reading.reason is not None)
    if served:
        assert (reading.value in served, calls) == (True, 0)
    elif refused:
        assert (reading.value, calls) == (None, 0)
    else:  # however often runs before this one have asked in vain
        assert (reading.value, calls) == ("fresh [[5]]", 1)


def test_a_call_that_fails_leaves_nothing_in_the_ledger() -> None:
    class Failing(Fresh):
        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            raise ConnectionError("down")

    async def ask() -> int:
        ledger = Ledger(None)
        async with Judge.from_model(Failing(), CONFIG, ledger) as judge:
            try:
                await judge.query(QUESTION, verdict)
            except ConnectionError:
                return ledger.totals().exchanges
        return -1

    assert asyncio.run(ask()) == 0


def test_a_filter_s_notice_is_kept_as_a_refusal_and_not_as_an_answer() -> None:
    class Filtered(Fresh):
        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            raise RequestRefused("withheld [[9]]")

    async def ask() -> tuple[Any, list[Exchange]]:
        ledger = Ledger(None)
        identity = request_id(QUESTION, judge=MODEL, revision="", extra={})
        async with Judge.from_model(Filtered(), CONFIG, ledger) as judge:
            return await judge.query(QUESTION, verdict), ledger.find(identity)

    reading, (exchange,) = asyncio.run(ask())
    assert reading.value is None
    assert (exchange.outcome, exchange.reply.text) == ("refused", "")


# What decides about an answer: each change asks anew.
ASKED: Mapping[str, Any] = {"kind": "http", "model": "m", "base_url": "http://localhost:1/v1"}
CHANGES: list[Mapping[str, Any]] = [
    {},
    {"model": "n"},
    {"revision": "2"},
    {"system": "Be strict."},
    {"system": "Be kind."},
    {"thinking_tokens": 100},
    {"extra_body": {"top_p": 0.9}},
    {"extra_body": {"top_p": 0.8}},
    {"extra_body": {"seed": 1}},
    {"extra_body": {"temperature": None}},
    {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
    {"extra_body": {"system": "Be strict."}},
    {"extra_body": {"extra_body": {}, "system": "Be strict."}},
]
# What does not: an answer from before is served.
WAYS: list[Mapping[str, Any]] = [
    {"base_url": "http://localhost:2/v1"},
    {"kind": "vllm"},
    {"max_concurrency": 7},
    {"requests_per_minute": 7},
    {"timeout_s": 7.0},
    {"max_retries": 7},
    {"length_field": "max_tokens"},
    {"api_key_env": "MY_JUDGE_KEY"},
]


def identity(changes: Mapping[str, Any], question: ChatRequest = QUESTION) -> str:
    config = JudgeConfig(**{**ASKED, **changes})
    return request_id(question, judge=config.model or "", revision=config.revision, extra=_settings(config))


def test_the_key_covers_the_model_its_settings_and_all_messages() -> None:
    questions = [QUESTION, replace(QUESTION, text="Is it so? "), replace(QUESTION, max_tokens=513)]
    assert len({identity(changes, question) for changes in CHANGES for question in questions}) == 3 * len(CHANGES)


def test_the_key_leaves_out_how_the_judge_is_reached() -> None:
    assert {identity(changes) for changes in WAYS} == {identity({})}


def test_keys_are_those_of_ledgers_from_before() -> None:
    """A change here would ask every question anew, in every ledger that there is."""
    assert identity({})[:16] == "3953c85142a31409"
    assert identity({"system": "Be strict.", "thinking_tokens": 5, "extra_body": {"a": 1}})[:16] == "eedfa9b63d0fb1b5"


@given(st.text(), st.text(), st.integers(1, 9), st.integers(1, 9))
def test_two_questions_have_one_key_only_where_they_are_equal(one: str, two: str, few: int, many: int) -> None:
    keys = [
        request_id(replace(QUESTION, text=text, max_tokens=tokens), judge="j", revision="", extra={})
        for text, tokens in ((one, few), (two, many))
    ]
    assert (keys[0] == keys[1]) == ((one, few) == (two, many))
