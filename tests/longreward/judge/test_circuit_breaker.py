"""The circuit breaker for judges whose replies are never readable."""

import asyncio
from pathlib import Path

import pytest

from longreward.errors import JudgeRefused, PromptTooLong, UnreadableReply
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.reward.parsers import parse_rating


class NumberedModel:
    """Returns a readable reply to `<template> <n>` if `n` is in `readable`."""

    name = "chatty"

    def __init__(self, readable: set[int], reply: str = "What a good answer! I like it.") -> None:
        self.readable, self.reply = readable, reply
        self.requests: list[str] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request.text)
        await asyncio.sleep(0)
        return ChatReply("Rating: [[6]]" if int(request.text.split()[1]) in self.readable else self.reply)

    async def close(self) -> None:
        pass


def request_number(number: int, template: str = "helpfulness") -> ChatRequest:
    return ChatRequest(template, {}, f"{template} {number}", "h", 512)


async def query_all(judge: Judge, count: int, template: str = "helpfulness") -> list[float | None]:
    requests = (judge.query(request_number(n, template), parse_rating) for n in range(count))
    return [reply.value for reply in await asyncio.gather(*requests)]


async def test_run_stops_after_five_unreadable_requests_and_shows_reply() -> None:
    model = NumberedModel(set())
    async with Judge.from_model(model, JudgeConfig(max_attempts=3)) as judge:
        for n in range(4):
            assert (await judge.query(request_number(n), parse_rating)).value is None
        with pytest.raises(UnreadableReply) as stopped:
            await judge.query(request_number(4), parse_rating)
    assert len(model.requests) == 15
    message = str(stopped.value)
    assert "none of its 15 replies to 5 questions of the template helpfulness could be parsed" in message
    assert "last reply:      What a good answer! I like it." in message
    assert "expected format: an analysis, then a line such as Rating: [[7]] (0 to 10)" in message
    assert "longreward doctor" in message


async def test_run_stops_early_with_many_requests_in_flight() -> None:
    model = NumberedModel(set())
    async with Judge.from_model(model, JudgeConfig(max_concurrency=32)) as judge:
        with pytest.raises(UnreadableReply):
            await query_all(judge, 1000)
    assert len(model.requests) < 150


async def test_message_shows_start_and_end_of_long_reply() -> None:
    model = NumberedModel(set(), "Dear reader,\n" + "word " * 5000 + "in short: eight of ten.")
    async with Judge.from_model(model, JudgeConfig(max_attempts=1, stop_after_unreadable=1)) as judge:
        with pytest.raises(UnreadableReply, match=r"Dear reader, word .* \[…\] .*in short: eight of ten\.") as stopped:
            await judge.query(request_number(0), parse_rating)
    assert len(str(stopped.value)) < 1500


@pytest.mark.parametrize("readable", [{0}, {199}, set(range(0, 200, 40))])
async def test_readable_reply_resets_count(readable: set[int]) -> None:
    model = NumberedModel(readable)
    config = JudgeConfig(max_attempts=2, max_concurrency=200, stop_after_unreadable=30)
    async with Judge.from_model(model, config) as judge:
        values = await query_all(judge, 200)
    assert [n for n, value in enumerate(values) if value is not None] == sorted(readable)


async def test_templates_counted_separately() -> None:
    model = NumberedModel(set(range(50)))
    async with Judge.from_model(model, JudgeConfig(max_attempts=1, stop_after_unreadable=2)) as judge:
        assert None not in await query_all(judge, 50)
        model.readable = set()
        assert set(await query_all(judge, 200)) == {None, 6.0}  # readable before: some prompts are just hard
        with pytest.raises(UnreadableReply, match=r"(?s)of the template statements .*<statement>one fact"):
            await query_all(judge, 3, "statements")


async def test_message_on_lists_of_statements_names_the_setting() -> None:
    async with Judge.from_model(NumberedModel(set()), JudgeConfig(max_attempts=1, stop_after_unreadable=1)) as judge:
        with pytest.raises(UnreadableReply, match=r"(?s)a numbered line .*set score\.statements_per_call to 1"):
            await query_all(judge, 1, "support_list")
        with pytest.raises(UnreadableReply) as stopped:
            await query_all(judge, 1, "support")
    assert "statements_per_call" not in str(stopped.value)


async def test_readable_replies_from_ledger_count(tmp_path: Path) -> None:
    model = NumberedModel({7})
    config = JudgeConfig(max_attempts=1, stop_after_unreadable=2)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        await judge.query(request_number(7), parse_rating)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        await judge.query(request_number(7), parse_rating)
        assert [(await judge.query(request_number(n), parse_rating)).value for n in range(5)] == [None] * 5


async def test_next_run_repeats_unreadable_requests(tmp_path: Path) -> None:
    model = NumberedModel(set())
    config = JudgeConfig(max_attempts=2, stop_after_unreadable=1)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        with pytest.raises(UnreadableReply):
            await judge.query(request_number(3), parse_rating)
    model.readable = {3}
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        assert (await judge.query(request_number(3), parse_rating)).value == 6.0
    assert len(model.requests) == 3


async def test_limit_none_disables_circuit_breaker() -> None:
    model = NumberedModel(set())
    async with Judge.from_model(model, JudgeConfig(max_attempts=2, stop_after_unreadable=None)) as judge:
        assert await query_all(judge, 70) == [None] * 70
    assert len(model.requests) == 140


async def test_prompts_above_context_window_stop_run_unless_some_fit() -> None:
    """One long prompt among others ends unscored; five without any that fits mean that the settings are wrong."""

    class ShortWindow(NumberedModel):
        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            reply = await super().complete(request, temperature=temperature)
            if reply.text.endswith("[[6]]"):
                return reply
            raise PromptTooLong("the question is too long; lower score.extraction_chunk_tokens")

    model = ShortWindow(set())
    async with Judge.from_model(model) as judge:
        for n in range(4):
            reply = await judge.query(request_number(n), parse_rating)
            assert (reply.value, reply.attempts) == (None, 0)
            assert reply.reason == "the question is too long; lower score.extraction_chunk_tokens"
        with pytest.raises(JudgeRefused, match=r"all 5 prompts helpfulness so far are too long; .*lower score"):
            await judge.query(request_number(4), parse_rating)
    assert len(model.requests) == 5
    model = ShortWindow({0})
    async with Judge.from_model(model) as judge:
        assert len(await query_all(judge, 20)) == 20


async def test_too_long_prompts_are_not_recorded(tmp_path: Path) -> None:
    """The next run may have a server with a larger window."""

    class Window(NumberedModel):
        is_small = True

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            if self.is_small:
                raise PromptTooLong("the question is too long")
            return await super().complete(request, temperature=temperature)

    for is_small, value in ((True, None), (False, 6.0)):
        model = Window({1})
        model.is_small = is_small
        async with Judge.from_model(model, ledger=Ledger(tmp_path / "l")) as judge:
            assert (await judge.query(request_number(1), parse_rating)).value == value
            assert judge.metrics()["refused"] == is_small
