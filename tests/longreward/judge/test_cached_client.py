"""The cached client: repeated, shared, recorded and truncated requests, and interrupted runs."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from virtual_time import in_virtual_time

from longreward.errors import JudgeRefused, JudgeUnavailable, RequestRefused
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply, TokenUsage
from longreward.judge.ledger import Ledger
from longreward.judge.truncation import truncated_list
from longreward.reward.parsers import parse_rating, parse_statements


def rating_request(text: str) -> ChatRequest:
    return ChatRequest("helpfulness", {}, text, "hash", 512)


def parse(text: str) -> float | None:
    matches = re.findall(r"\[\[(\d+)\]\]", text)
    return float(matches[-1]) if matches else None


class ScriptedModel:
    """Replies from a table: for each text a reply for each call in turn; the last one repeats."""

    name = "scripted"

    def __init__(self, table: dict[str, list[str | Exception]], latency_s: float = 0.0) -> None:
        self.table = table
        self.latency_s = latency_s
        self.calls: list[tuple[str, float]] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        index = Counter(text for text, _ in self.calls)[request.text]
        self.calls.append((request.text, temperature))
        await asyncio.sleep(self.latency_s)
        replies = self.table[request.text]
        reply = replies[min(index, len(replies) - 1)]
        if isinstance(reply, Exception):
            raise reply
        return ChatReply(reply, "stop", TokenUsage(100, 10, 5))

    async def close(self) -> None:
        pass


async def test_readable_reply_requested_once_and_then_served_from_ledger(tmp_path: Path) -> None:
    model = ScriptedModel({"q": ["good: [[7]]"]})
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        first = await judge.query(rating_request("q"), parse)
        second = await judge.query(rating_request("q"), parse)
    assert (first.value, first.reason, first.attempts, first.calls) == (7.0, None, 1, 1)
    assert (second.value, second.calls, second.usage) == (7.0, 0, TokenUsage(100, 10, 5))
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        assert (await judge.query(rating_request("q"), parse)).value == 7.0
        assert judge.metrics()["ledger_hits"] == 1
    assert model.calls == [("q", 0.01)]


async def test_unreadable_reply_requested_again_at_retry_temperature() -> None:
    model = ScriptedModel({"q": ["hm", "well", "[[3]]"]})
    async with Judge.from_model(model) as judge:
        reply = await judge.query(rating_request("q"), parse)
        assert (reply.value, reply.attempts, reply.calls) == (3.0, 3, 3)
        assert reply.usage == TokenUsage(300, 30, 15)
        assert judge.metrics() == {
            "calls": 3,
            "ledger_hits": 0,
            "shared": 0,
            "prompt_tokens": 300,
            "completion_tokens": 30,
            "cached_tokens": 15,
            "unreadable": 2,
            "reminders": 0,
            "refused": 0,
            "truncated": 0,
            "failed": 0,
            "requests": 3,
            "retries": 0,
            "throttled": 0,
            "timeouts": 0,
            "disconnects": 0,
            "concurrency": 1,
        }
    assert [temperature for _, temperature in model.calls] == [0.01, 0.95, 0.95]


async def test_each_run_makes_one_round_of_attempts_at_unreadable_request(tmp_path: Path) -> None:
    model = ScriptedModel({"q": ["no verdict at all", "none", "nor here", "nothing", "[[7]]"]})
    config, file = JudgeConfig(max_attempts=2), tmp_path / "l.sqlite"
    async with Judge.from_model(model, config, Ledger(file)) as judge:
        for calls in (2, 0):
            reply = await judge.query(rating_request("q"), parse)
            assert (reply.value, reply.calls, reply.attempts) == (None, calls, 2)
            assert reply.reason == "no readable answer in 2 attempts; the last: " + (
                "the answer holds no verdict in the asked form: …none"
            )
            assert len(model.calls) == 2
    async with Judge.from_model(model, config, Ledger(file)) as judge:
        assert (await judge.query(rating_request("q"), parse)).attempts == 4
    async with Judge.from_model(model, config, Ledger(file)) as judge:
        reply = await judge.query(rating_request("q"), parse)
        assert (reply.value, reply.calls, reply.attempts) == (7.0, 1, 5)
    assert [temperature for _, temperature in model.calls] == [0.01, 0.95, 0.01, 0.95, 0.01]
    async with Judge.from_model(model, config, Ledger(file)) as judge:
        assert (await judge.query(rating_request("q"), parse)).calls == 0
    with Ledger(file) as ledger:
        totals = ledger.totals()
    assert (totals.exchanges, totals.unreadable) == (5, 4)


async def test_interrupted_round_completed_by_next_run(tmp_path: Path) -> None:
    model = ScriptedModel({"q": ["hm", "well", JudgeUnavailable("down"), "so", "no", "again"]})
    config = JudgeConfig(max_attempts=4)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l.sqlite")) as judge:
        with pytest.raises(JudgeUnavailable):
            await judge.query(rating_request("q"), parse)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l.sqlite")) as judge:
        reply = await judge.query(rating_request("q"), parse)
    assert (reply.value, reply.calls, reply.attempts) == (None, 2, 4)
    assert [temperature for _, temperature in model.calls] == [0.01, 0.95, 0.95, 0.95, 0.95]


async def test_another_retry_temperature_repeats_only_unreadable_requests(tmp_path: Path) -> None:
    model = ScriptedModel({"good": ["[[1]]"], "bad": ["hm"]})
    for retry_temperature in (0.9, 0.5):
        config = JudgeConfig(max_attempts=2, retry_temperature=retry_temperature)
        async with Judge.from_model(model, config, Ledger(tmp_path / "l.sqlite")) as judge:
            await judge.query(rating_request("good"), parse)
            await judge.query(rating_request("bad"), parse)
    assert model.calls == [("good", 0.01), ("bad", 0.01), ("bad", 0.9), ("bad", 0.5)]


async def test_refused_request_recorded_with_reason_and_not_repeated(tmp_path: Path) -> None:
    model = ScriptedModel({"q": [RequestRefused("content filter")]})
    for _ in range(2):
        async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
            reply = await judge.query(rating_request("q"), parse)
            assert (reply.value, reply.reason) == (None, "content filter")
    assert len(model.calls) == 1


async def test_unavailable_judge_raises_and_recorded_replies_stay(tmp_path: Path) -> None:
    model = ScriptedModel({"a": ["[[1]]"], "b": [JudgeUnavailable("down"), "[[2]]"]})
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        await judge.query(rating_request("a"), parse)
        with pytest.raises(JudgeUnavailable, match="down"):
            await judge.query(rating_request("b"), parse)
        assert (await judge.query(rating_request("b"), parse)).value == 2.0
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        assert (await judge.query(rating_request("a"), parse)).calls == 0


@in_virtual_time
async def test_equal_requests_in_flight_sent_once() -> None:
    model = ScriptedModel({"q": ["[[4]]"]}, latency_s=0.02)
    async with Judge.from_model(model) as judge:
        replies = await asyncio.gather(*(judge.query(rating_request("q"), parse) for _ in range(10)))
        assert [reply.value for reply in replies] == [4.0] * 10
        assert sum(reply.calls for reply in replies) == 1
        assert judge.metrics()["shared"] == 9
    assert len(model.calls) == 1


@in_virtual_time
async def test_cancelled_caller_does_not_affect_others() -> None:
    model = ScriptedModel({"q": ["[[4]]"]}, latency_s=0.02)
    async with Judge.from_model(model) as judge:
        first = asyncio.create_task(judge.query(rating_request("q"), parse))
        await asyncio.sleep(0.005)
        second = asyncio.create_task(judge.query(rating_request("q"), parse))
        await asyncio.sleep(0.005)
        first.cancel()
        assert (await second).value == 4.0
        assert first.cancelled()
    assert len(model.calls) == 1


@in_virtual_time
async def test_request_without_callers_cancelled_and_can_be_repeated() -> None:
    model = ScriptedModel({"q": ["[[4]]"]}, latency_s=0.02)
    async with Judge.from_model(model) as judge:
        first = asyncio.create_task(judge.query(rating_request("q"), parse))
        await asyncio.sleep(0.005)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await judge.query(rating_request("q"), parse)).value == 4.0


@in_virtual_time
async def test_calls_in_flight_stay_within_max_concurrency() -> None:
    class CountingModel(ScriptedModel):
        running = peak = 0

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                return await super().complete(request, temperature=temperature)
            finally:
                self.running -= 1

    model = CountingModel({str(n): ["[[4]]"] for n in range(30)}, latency_s=0.002)
    async with Judge.from_model(model, JudgeConfig(max_concurrency=4)) as judge:
        await asyncio.gather(*(judge.query(rating_request(str(n)), parse) for n in range(30)))
    assert model.peak == 4


async def test_reply_recorded_by_another_process_while_request_waits_is_used(tmp_path: Path) -> None:
    class BlockingModel:
        """Blocks on the text "first"; "unreadable" is readable only at the retry temperature."""

        name = "blocking"

        def __init__(self) -> None:
            self.texts: list[str] = []

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            self.texts.append(request.text)
            if request.text == "first":
                first_received.set()
                await others_recorded.wait()
            await asyncio.sleep(0)
            return ChatReply("" if request.text == "unreadable" and temperature < 0.5 else "[[7]]")

        async def close(self) -> None:
            pass

    first_received, others_recorded = asyncio.Event(), asyncio.Event()
    model, other_model = BlockingModel(), BlockingModel()
    texts = ["first", "one", "unreadable", "two"]
    config = JudgeConfig(max_concurrency=1)
    async with (
        Judge.from_model(model, config, ledger=Ledger(tmp_path / "l")) as judge,
        Judge.from_model(other_model, config, ledger=Ledger(tmp_path / "l")) as other_judge,
    ):

        async def query(judge: Judge, text: str) -> float | None:
            return (await judge.query(ChatRequest("helpfulness", {}, text, "h", 9), parse_rating)).value

        waiting = asyncio.gather(*(query(judge, text) for text in texts))
        await first_received.wait()
        assert await asyncio.gather(*(query(other_judge, text) for text in texts[1:])) == [7.0, 7.0, 7.0]
        others_recorded.set()
        assert await waiting == [7.0, 7.0, 7.0, 7.0]
        metrics = judge.metrics()
    assert other_model.texts == ["one", "unreadable", "two", "unreadable"]
    assert model.texts == ["first"]
    assert (metrics["calls"], metrics["ledger_hits"], metrics["unreadable"]) == (1, 4, 0)


# Truncated replies

STATEMENTS = "".join(f"<statement>Fact {n} of the answer.</statement>\n" for n in range(1, 41))  # 45 characters a line


def parse_list(text: str) -> tuple[str, ...] | None:
    return parse_statements(text, "<no_statement/>")


class TruncatingModel:
    """Replies with `text`, cut after as many characters as the request allows tokens; raises what `refuse` returns."""

    name = "truncating"

    def __init__(self, text: str = STATEMENTS, refuse: Callable[[int], Exception | None] = lambda limit: None) -> None:
        self.text, self.refuse = text, refuse
        self.calls: list[tuple[int, float]] = []

    @property
    def limits(self) -> list[int]:
        return [limit for limit, _ in self.calls]

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.calls.append((request.max_tokens, temperature))
        if (refusal := self.refuse(request.max_tokens)) is not None:
            raise refusal
        is_cut = len(self.text) > request.max_tokens
        return ChatReply(self.text[: request.max_tokens], "length" if is_cut else "stop")

    async def close(self) -> None:
        pass


async def query_list(
    model: TruncatingModel, ledger: Path | None = None, *, limit: int = 300, **settings: Any
) -> ParsedReply[tuple[str, ...]]:
    async with Judge.from_model(model, JudgeConfig(**settings), Ledger(ledger)) as judge:
        request = ChatRequest("statements", {}, "q", "h", limit)
        return await judge.query(request, parse_list, parse_truncated=truncated_list(parse_list, end_tag="statement"))


async def test_truncated_list_requested_again_with_twice_limit(tmp_path: Path) -> None:
    model = TruncatingModel()
    reply = await query_list(model, tmp_path / "l")
    assert reply.value == tuple(f"Fact {n} of the answer." for n in range(1, 41))
    assert (reply.truncated, reply.reason, reply.calls) == (False, None, 4)
    # The first retry only raises the limit; later ones change the temperature too, which may end a repetition.
    assert model.calls == [(300, 0.01), (600, 0.01), (1200, 0.95), (2400, 0.95)]
    cached = await query_list(model, tmp_path / "l")
    assert (cached.value, cached.calls, len(model.calls)) == (reply.value, 0, 4)


async def test_reply_truncated_at_largest_limit_unscored(tmp_path: Path) -> None:
    model = TruncatingModel()
    for _ in range(2):
        reply = await query_list(model, tmp_path / "l", max_reply_tokens=500, max_attempts=4)
        assert (reply.value, reply.truncated, reply.calls) == (None, False, 4)
        assert "cut at the token limit (500 tokens; judge.max_reply_tokens" in (reply.reason or "")
    first_round = [(300, 0.01), (500, 0.01), (500, 0.95), (500, 0.95)]
    second_round = [(500, 0.01), (500, 0.95), (500, 0.95), (500, 0.95)]
    assert model.calls == first_round + second_round


async def test_complete_part_of_reply_truncated_at_largest_limit_flagged(tmp_path: Path) -> None:
    model = TruncatingModel()
    for calls in (2, 0):
        reply = await query_list(model, tmp_path / "l", max_reply_tokens=500, truncated_replies="complete_part")
        assert reply.value == tuple(f"Fact {n} of the answer." for n in range(1, 12))  # the 12th is cut
        assert (reply.truncated, reply.calls) == (True, calls)
    assert model.calls == [(300, 0.01), (500, 0.01)]


async def test_partial_value_not_served_to_run_that_requires_complete_replies(tmp_path: Path) -> None:
    model = TruncatingModel()
    partial = await query_list(model, tmp_path / "l", max_reply_tokens=500, truncated_replies="complete_part")
    assert partial.truncated
    complete = await query_list(model, tmp_path / "l", max_reply_tokens=4096)
    assert (len(complete.value or ()), complete.truncated) == (40, False)
    assert model.limits == [300, 500, 600, 1200, 2400]


async def test_truncated_reply_recorded_as_readable_is_not_served_as_complete(tmp_path: Path) -> None:
    model = TruncatingModel()
    await query_list(model, tmp_path / "l", truncated_replies="as_complete")
    assert model.limits == [300]
    reply = await query_list(model, tmp_path / "l")
    assert len(reply.value or ()) == 40
    assert model.limits == [300, 600, 1200, 2400]


async def test_interrupted_sequence_of_limits_continued(tmp_path: Path) -> None:
    class InterruptedModel(TruncatingModel):
        is_interrupted = False

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            if len(self.calls) == 2 and not self.is_interrupted:
                self.is_interrupted = True
                raise KeyError("interrupted")
            return await super().complete(request, temperature=temperature)

    model = InterruptedModel()
    with pytest.raises(KeyError):
        await query_list(model, tmp_path / "l")
    reply = await query_list(model, tmp_path / "l")
    assert (len(reply.value or ()), reply.attempts, reply.calls) == (40, 4, 2)
    assert model.calls == [(300, 0.01), (600, 0.01), (1200, 0.95), (2400, 0.95)]


@pytest.mark.parametrize(
    "refusal", [RequestRefused("context length exceeded"), JudgeRefused("max_tokens is too large")]
)
async def test_after_refused_limit_previous_limit_is_used(tmp_path: Path, refusal: Exception) -> None:
    model = TruncatingModel(refuse=lambda limit: refusal if limit > 300 else None)
    reply = await query_list(model, tmp_path / "l", max_attempts=3)
    assert reply.value is None
    assert "cut at the token limit (300 tokens" in (reply.reason or "")
    assert model.limits == [300, 600, 300, 300]
    partial = await query_list(model, tmp_path / "l", max_attempts=3, truncated_replies="complete_part")
    assert (len(partial.value or ()), partial.truncated) == (6, True)


async def test_reply_cut_by_context_window_is_not_blamed_on_token_limit() -> None:
    class FullWindow(TruncatingModel):
        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            await super().complete(request, temperature=temperature)
            return ChatReply(self.text[:200], "length", usage=TokenUsage(400, 200))

    reply = await query_list(FullWindow(), max_attempts=1)
    assert reply.value is None
    assert "cut after 200 of at most 300 tokens (the server's context window is full" in (reply.reason or "")


async def test_limit_in_extra_body_not_raised() -> None:
    model = TruncatingModel()
    await query_list(model, extra_body={"max_tokens": 300}, max_attempts=2)
    assert model.limits == [300, 300]


async def test_truncated_reply_parsed_normally_without_parse_truncated() -> None:
    async with Judge.from_model(TruncatingModel()) as judge:
        reply = await judge.query(ChatRequest("t", {}, "q", "h", 300), parse_list)
        assert judge.metrics()["truncated"] == 1
    assert (len(reply.value or ()), reply.calls) == (6, 1)
