"""A judge whose replies can never be read stops the run early; one that is read now and then never does."""

import asyncio
from pathlib import Path

import pytest

from longreward.errors import UnreadableReply
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.reward.parsers import parse_rating


class Numbered:
    """Answers question `<template> <n>` of which `n` is in `readable`; counts requests."""

    name = "chatty"

    def __init__(self, readable: set[int], reply: str = "What a good answer! I like it.") -> None:
        self.readable, self.reply = readable, reply
        self.asked: list[str] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.asked.append(request.text)
        await asyncio.sleep(0)
        return ChatReply("Rating: [[6]]" if int(request.text.split()[1]) in self.readable else self.reply)

    async def close(self) -> None:
        pass


def question(number: int, template: str = "helpfulness") -> ChatRequest:
    return ChatRequest(template, {}, f"{template} {number}", "h", 512)


async def ask_all(judge: Judge, count: int, template: str = "helpfulness") -> list[float | None]:
    asked = (judge.query(question(n, template), parse_rating) for n in range(count))
    return [reading.value for reading in await asyncio.gather(*asked)]


async def test_a_judge_that_is_never_readable_stops_after_five_questions_and_shows_a_reply() -> None:
    model = Numbered(set())
    async with Judge.from_model(model, JudgeConfig(max_attempts=3)) as judge:
        for n in range(4):
            assert (await judge.query(question(n), parse_rating)).value is None
        with pytest.raises(UnreadableReply) as stopped:
            await judge.query(question(4), parse_rating)
    assert len(model.asked) == 15
    message = str(stopped.value)
    assert "none of its 15 replies to 5 questions of the template helpfulness could be parsed" in message
    assert "last reply:      What a good answer! I like it." in message
    assert "expected format: an analysis, then a line such as Rating: [[7]] (0 to 10)" in message
    assert "longreward doctor" in message


async def test_with_many_questions_in_flight_it_stops_long_before_all_are_asked() -> None:
    model = Numbered(set())
    async with Judge.from_model(model, JudgeConfig(max_concurrency=32)) as judge:
        with pytest.raises(UnreadableReply):
            await ask_all(judge, 1000)
    assert len(model.asked) < 150


async def test_a_long_reply_is_shown_by_its_beginning_and_its_end() -> None:
    model = Numbered(set(), "Dear reader,\n" + "word " * 5000 + "in short: eight of ten.")
    async with Judge.from_model(model, JudgeConfig(max_attempts=1, stop_after_unreadable=1)) as judge:
        with pytest.raises(UnreadableReply, match=r"Dear reader, word .* \[…\] .*in short: eight of ten\.") as stopped:
            await judge.query(question(0), parse_rating)
    assert len(str(stopped.value)) < 1500


@pytest.mark.parametrize("readable", [{0}, {199}, set(range(0, 200, 40))])
async def test_a_judge_with_any_readable_reply_before_the_limit_is_never_stopped(readable: set[int]) -> None:
    """Five in 200 are far fewer than "most of the time"; in the order of the questions, or all at once."""
    model = Numbered(readable)
    config = JudgeConfig(max_attempts=2, max_concurrency=200, stop_after_unreadable=30)
    async with Judge.from_model(model, config) as judge:
        values = await ask_all(judge, 200)
    assert [n for n, value in enumerate(values) if value is not None] == sorted(readable)


async def test_each_template_is_counted_for_itself() -> None:
    """A judge may rate well and be unable to list statements."""
    model = Numbered(set(range(50)))
    async with Judge.from_model(model, JudgeConfig(max_attempts=1, stop_after_unreadable=2)) as judge:
        assert None not in await ask_all(judge, 50)
        model.readable = set()
        assert set(await ask_all(judge, 200)) == {None, 6.0}  # it was readable before: some prompts are just hard
        with pytest.raises(UnreadableReply, match=r"(?s)of the template statements .*<statement>one fact"):
            await ask_all(judge, 3, "statements")


async def test_what_the_ledger_knows_to_be_readable_counts_as_readable(tmp_path: Path) -> None:
    model = Numbered({7})
    config = JudgeConfig(max_attempts=1, stop_after_unreadable=2)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        await judge.query(question(7), parse_rating)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        await judge.query(question(7), parse_rating)
        assert [(await judge.query(question(n), parse_rating)).value for n in range(5)] == [None] * 5


async def test_the_next_run_asks_again_what_stopped_this_one(tmp_path: Path) -> None:
    model = Numbered(set())
    config = JudgeConfig(max_attempts=2, stop_after_unreadable=1)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        with pytest.raises(UnreadableReply):
            await judge.query(question(3), parse_rating)
    model.readable = {3}
    async with Judge.from_model(model, config, Ledger(tmp_path / "l")) as judge:
        assert (await judge.query(question(3), parse_rating)).value == 6.0
    assert len(model.asked) == 3


async def test_it_can_be_switched_off() -> None:
    model = Numbered(set())
    async with Judge.from_model(model, JudgeConfig(max_attempts=2, stop_after_unreadable=None)) as judge:
        assert await ask_all(judge, 70) == [None] * 70
    assert len(model.asked) == 140
