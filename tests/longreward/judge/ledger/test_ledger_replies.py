"""The ledger serves readable replies to exactly the same request, and nothing else."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import RequestRefused
from longreward.judge.cached_client import _key_settings
from longreward.judge.config import JudgeConfig
from longreward.judge.judge import Judge
from longreward.judge.ledger import Exchange, Ledger, request_id

REQUEST = ChatRequest("support", {}, "Is it so?", "h", 512)
CONFIG = JudgeConfig(max_attempts=3)
MODEL = "m"


class CountingModel:
    """A model whose replies differ from stored ones."""

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


stored_exchanges = st.builds(
    Exchange,
    request_id=st.just(request_id(REQUEST, judge=MODEL, revision="", extra={})),
    attempt=st.integers(1, 4),
    temperature=st.sampled_from([0.01, 0.95, 0.5]),
    template=st.just("support"),
    prompt_hash=st.just("h"),
    judge=st.just(MODEL),
    revision=st.just(""),
    reply=st.sampled_from(
        [ChatReply("stored [[7]]"), ChatReply("no verdict"), ChatReply(""), ChatReply("cut [[", "length")]
    ),
    outcome=st.sampled_from(["readable", "unreadable", "refused"]),
    reason=st.just("why"),
).map(lambda exchange: replace(exchange, reason=None) if exchange.outcome == "readable" else exchange)


@settings(max_examples=150, deadline=None)
@given(st.lists(stored_exchanges, max_size=6))
def test_readable_replies_served_and_other_requests_repeated(exchanges: list[Exchange]) -> None:
    async def query() -> tuple[Any, int]:
        model, ledger = CountingModel(), Ledger(None)
        ledger.put_many(exchanges)
        async with Judge.from_model(model, CONFIG, ledger) as judge:
            return await judge.query(REQUEST, verdict), model.calls

    reply, calls = asyncio.run(query())
    first: dict[tuple[int, float], Exchange] = {}
    for exchange in exchanges:
        first.setdefault((exchange.attempt, exchange.temperature), exchange)
    # Other exchanges have temperatures that this judge does not use. The stored outcome does not matter, unless it is
    # "refused": another version of the parser may read more replies.
    used = {(1, 0.01), *((attempt, temperature) for attempt in (2, 3, 4) for temperature in (0.01, 0.95))}
    usable = [exchange for key, exchange in first.items() if key in used]
    texts = [exchange.reply.text for exchange in usable if exchange.outcome != "refused"]
    served = {text for text in texts if verdict(text)}
    refused = any(exchange.outcome == "refused" for exchange in usable)
    assert (reply.value is None) == (reply.reason is not None)
    if served:
        assert (reply.value in served, calls) == (True, 0)
    elif refused:
        assert (reply.value, calls) == (None, 0)
    else:  # however often earlier runs have requested it in vain
        assert (reply.value, calls) == ("fresh [[5]]", 1)


def test_failed_call_stores_nothing() -> None:
    class Failing(CountingModel):
        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            raise ConnectionError("down")

    async def request_reply() -> int:
        ledger = Ledger(None)
        async with Judge.from_model(Failing(), CONFIG, ledger) as judge:
            try:
                await judge.query(REQUEST, verdict)
            except ConnectionError:
                return ledger.totals().exchanges
        return -1

    assert asyncio.run(request_reply()) == 0


def test_content_filter_stored_as_refusal() -> None:
    class Filtered(CountingModel):
        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            raise RequestRefused("withheld [[9]]")

    async def request_reply() -> tuple[Any, list[Exchange]]:
        ledger = Ledger(None)
        identity = request_id(REQUEST, judge=MODEL, revision="", extra={})
        async with Judge.from_model(Filtered(), CONFIG, ledger) as judge:
            return await judge.query(REQUEST, verdict), ledger.find(identity)

    reply, (exchange,) = asyncio.run(request_reply())
    assert reply.value is None
    assert (exchange.outcome, exchange.reply.text) == ("refused", "")


# Settings that affect the reply: each change gives another request id.
BASE_SETTINGS: Mapping[str, Any] = {"kind": "http", "model": "m", "base_url": "http://localhost:1/v1"}
AFFECTING_REPLIES: list[Mapping[str, Any]] = [
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
# Settings that do not: stored replies are served.
NOT_AFFECTING_REPLIES: list[Mapping[str, Any]] = [
    {"base_url": "http://localhost:2/v1"},
    {"kind": "vllm"},
    {"max_concurrency": 7},
    {"requests_per_minute": 7},
    {"timeout_s": 7.0},
    {"max_retries": 7},
    {"length_field": "max_tokens"},
    {"api_key_env": "MY_JUDGE_KEY"},
]


def id_for(changes: Mapping[str, Any], question: ChatRequest = REQUEST) -> str:
    config = JudgeConfig(**{**BASE_SETTINGS, **changes})
    return request_id(question, judge=config.model or "", revision=config.revision, extra=_key_settings(config))


def test_request_id_covers_model_settings_and_messages() -> None:
    questions = [REQUEST, replace(REQUEST, text="Is it so? "), replace(REQUEST, max_tokens=513)]
    assert len({id_for(changes, question) for changes in AFFECTING_REPLIES for question in questions}) == 3 * len(
        AFFECTING_REPLIES
    )


def test_request_id_is_independent_of_connection() -> None:
    assert {id_for(changes) for changes in NOT_AFFECTING_REPLIES} == {id_for({})}


def test_request_ids_of_existing_ledgers_unchanged() -> None:
    """A change would repeat, and bill, every request of every existing ledger."""
    assert id_for({})[:16] == "3953c85142a31409"
    assert id_for({"system": "Be strict.", "thinking_tokens": 5, "extra_body": {"a": 1}})[:16] == "eedfa9b63d0fb1b5"


@given(st.text(), st.text(), st.integers(1, 9), st.integers(1, 9))
def test_request_ids_are_equal_only_for_equal_requests(one: str, two: str, first_limit: int, second_limit: int) -> None:
    keys = [
        request_id(replace(REQUEST, text=text, max_tokens=tokens), judge="j", revision="", extra={})
        for text, tokens in ((one, first_limit), (two, second_limit))
    ]
    assert (keys[0] == keys[1]) == ((one, first_limit) == (two, second_limit))
