"""An unreadable reply is followed by a reminder of the format, in the same conversation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longreward.chat_model import ReplyFormat
from longreward.errors import BudgetExceeded, JudgeRefused, RequestRefused
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, TokenUsage, open_judge
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge.judge import request_summary
from longreward.judge.ledger import Ledger, request_id
from longreward.judge.prompts import load_prompts
from longreward.judge.truncation import truncated_verdict
from longreward.planning.dry_run import DryRunJudge
from longreward.reward.parsers import parse_rating

REMINDER = "Write just one line such as: Rating: [[6]]"
REQUEST = ChatRequest("helpfulness", {}, "How good is it?", "hash", 512, reply_format=ReplyFormat(reminder=REMINDER))
# Computed before requests had a format and further turns: recorded replies stay valid.
KEY = "2bb4d6e8b72471e38167f38aaeb1567666b20f5e55184be6afa671bdab67d7d0"
Reply = str | ChatReply | Exception


class Killed(Exception):
    """Ends a run like a signal: nothing handles it."""


class Model:
    """Gives its replies in turn and records the messages and the temperature of each request."""

    name = "m"

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.calls: list[tuple[list[str], float]] = []
        self.limits: list[int] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.calls.append(([message["content"] for message in request.messages()], temperature))
        self.limits.append(request.max_tokens)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return ChatReply(reply, usage=TokenUsage(100, 10)) if isinstance(reply, str) else reply

    async def close(self) -> None:
        pass


async def test_reminders_alternate_with_repeated_requests() -> None:
    model = Model("It is fine.", "As I said.", "Well written.", "[[x]]", "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        reply = await judge.query(REQUEST, parse_rating)
        metrics = judge.metrics()
    question = "How good is it?"
    assert model.calls == [
        ([question], 0.01),
        ([question, "It is fine.", REMINDER], 0.01),
        ([question], 0.95),
        ([question, "Well written.", REMINDER], 0.01),
        ([question], 0.95),
    ]
    assert (reply.value, reply.attempts, reply.calls, reply.usage) == (4.0, 5, 5, TokenUsage(500, 50))
    assert (metrics["calls"], metrics["unreadable"], metrics["reminders"]) == (5, 4, 2)
    assert request_summary("m", metrics).endswith("4 unreadable and 0 truncated replies, 2 reminders of the format")


async def test_text_joins_reply_and_reply_to_reminder() -> None:
    async with Judge.from_model(Model("The year is missing.", "Rating: [[4]]")) as judge:
        reply = await judge.query(REQUEST, parse_rating)
    assert (reply.value, reply.text) == (4.0, "The year is missing.\n\nRating: [[4]]")


async def test_interrupted_round_continues_from_ledger(tmp_path: Path) -> None:
    """After each number of calls a new process continues, and no request is sent twice."""
    replies = ["It is fine.", "As I said.", "Well written.", "Rating: [[4]]"]
    calls = []
    for index, reply in enumerate(replies):
        model = Model(reply, Killed())
        async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
            if index + 1 < len(replies):
                with pytest.raises(Killed):
                    await judge.query(REQUEST, parse_rating)
                calls.append(model.calls[0])
                continue
            result = await judge.query(REQUEST, parse_rating)
            calls += model.calls
    uninterrupted = Model(*replies)
    async with Judge.from_model(uninterrupted) as judge:
        expected = await judge.query(REQUEST, parse_rating)
    assert calls == uninterrupted.calls
    assert replace(result, calls=4) == expected
    # A plan finds the verdict as well.
    plan = DryRunJudge(JudgeConfig(kind="http", model="m"), ledger=tmp_path / "l.sqlite")
    assert (await plan.query(REQUEST, parse_rating)).value == 4.0
    assert plan.all_cached


@pytest.mark.parametrize("refusal", [RequestRefused("too long"), JudgeRefused("400: roles must alternate")])
async def test_refused_reminder_is_followed_by_request_alone(refusal: Exception) -> None:
    model = Model("It is fine.", refusal, "Well written.", "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        reply = await judge.query(REQUEST, parse_rating)
        metrics = judge.metrics()
    assert [len(messages) for messages, _ in model.calls] == [1, 3, 1, 1]
    assert (reply.value, reply.attempts, metrics["calls"], metrics["reminders"]) == (4.0, 3, 3, 0)


async def test_truncated_and_empty_replies_get_no_reminder() -> None:
    model = Model(ChatReply("It is", "length"), ChatReply("", "stop"), "Fine.", "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        reply = await judge.query(REQUEST, parse_rating, parse_truncated=truncated_verdict(parse_rating))
    assert reply.value == 4.0
    assert [len(messages) for messages, _ in model.calls] == [1, 1, 1, 3]
    # The reminder keeps the limit of the reply that it follows.
    assert model.limits == [512, 1024, 1024, 1024]


async def test_endless_analysis_is_asked_for_verdict() -> None:
    """A larger limit is tried once; a list gets larger limits only, as its verdict is all of it."""
    endless = [ChatReply(" ".join(map(str, range(count))), "length") for count in (100, 200, 300, 400)]
    parse_truncated = truncated_verdict(parse_rating)
    model = Model(*endless[:2], "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        reply = await judge.query(REQUEST, parse_rating, parse_truncated=parse_truncated)
    assert (reply.value, reply.truncated, model.limits) == (4.0, False, [512, 1024, 1024])
    assert model.calls[2] == (["How good is it?", endless[1].text, REMINDER], 0.01)
    model = Model(*endless, "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        request = replace(REQUEST, reply_format=ReplyFormat(reminder=REMINDER, is_list=True))
        reply = await judge.query(request, parse_rating, parse_truncated=parse_truncated)
    assert (reply.value, model.limits) == (4.0, [512, 1024, 2048, 4096, 4096])
    assert [len(messages) for messages, _ in model.calls] == [1] * 5


async def test_judge_that_repeats_itself_is_asked_for_verdict_at_once() -> None:
    """The end of a recorded reply of Qwen2.5-Coder-1.5B-Instruct, which a larger limit only prolongs."""
    sentences = (
        "Passage 4 mentions it being built by Bruno Weller, but it doesn't specify who built it. Passage 2 mentions it "
        "being built by Quentin Vidal, but it doesn't specify who built it. "
    )
    loop = "Passage 1 mentions Quentin Vidal building the striped garden. " + sentences * 4 + "Passage 4"
    model = Model(ChatReply(loop, "length"), "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        reply = await judge.query(REQUEST, parse_rating, parse_truncated=truncated_verdict(parse_rating))
    assert (reply.value, model.limits) == (4.0, [512, 512])
    assert model.calls[1] == (["How good is it?", loop, REMINDER], 0.01)


async def test_reminder_conversation_excludes_reasoning() -> None:
    model = Model("<think>Perhaps [[9]]?</think>\nIt is fine.\n", "Rating: [[4]]")
    async with Judge.from_model(model) as judge:
        await judge.query(REQUEST, parse_rating)
    assert model.calls[1][0][1] == "It is fine."


@pytest.mark.parametrize(("limit", "is_enough"), [(2935, True), (2934, False)])
async def test_budget_reserves_whole_conversation(
    serve_chat: Callable[..., Any], completion: Callable[..., Any], limit: int, is_enough: bool
) -> None:
    """The first call used 110 tokens. The second may use 15 + 2,000 + 42 bytes, 2 times 128 for the template, 512."""

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, completion("x" * 2000 if len(body["messages"]) == 1 else "Rating: [[4]]")

    with serve_chat(reply) as server:
        config = JudgeConfig(kind="http", model="m", base_url=server.url)
        async with open_judge(config, ledger=None, budget=Budget(BudgetConfig(tokens=limit))) as judge:
            if is_enough:
                assert (await judge.query(REQUEST, parse_rating)).value == 4.0
            else:
                with pytest.raises(BudgetExceeded, match=r"the next call may take 2,825"):
                    await judge.query(REQUEST, parse_rating)
    assert len(server.bodies) == 1 + is_enough


def test_ledger_key_depends_on_turns_and_not_on_format() -> None:
    def key(request: ChatRequest) -> str:
        return request_id(request, judge="m", revision="", extra={})

    plain = replace(REQUEST, reply_format=ReplyFormat())
    assert key(REQUEST) == key(plain) == KEY
    turns = [(("Fine.", REMINDER),), (("Good.", REMINDER),), (("Fine.", "Again."),)]
    assert len({key(plain), *(key(replace(plain, turns=turn)) for turn in turns)}) == 4


async def test_reminder_messages_over_http(serve_chat: Callable[..., Any], completion: Callable[..., Any]) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, completion("It is fine." if len(body["messages"]) == 2 else "Rating: [[4]]")

    with serve_chat(reply) as server:
        config = JudgeConfig(kind="http", model="m", base_url=server.url, system="Be strict.")
        async with open_judge(config, ledger=None) as judge:
            assert (await judge.query(REQUEST, parse_rating)).value == 4.0
    assert server.bodies[1]["messages"] == [
        {"role": "system", "content": "Be strict."},
        {"role": "user", "content": "How good is it?"},
        {"role": "assistant", "content": "It is fine."},
        {"role": "user", "content": REMINDER},
    ]


def test_built_in_reminders_by_template_and_language() -> None:
    reminders = {key: template.reply_format.reminder for key, template in load_prompts().templates.items()}
    # Every text that is not empty is a readable extract.
    assert {name for (name, _), reminder in reminders.items() if not reminder} == {"extraction"}
    for (name, language), reminder in reminders.items():
        assert "\n" not in reminder
        assert (language == "zh") == any("\u4e00" <= character <= "\u9fff" for character in reminder) or not reminder
        if name in ("helpfulness", "logicality", "completeness"):
            assert parse_rating(reminder) == 6.0  # the example has the form that it asks for


def test_published_parsing_has_no_reminders_and_stop_sequences() -> None:
    formats = [template.reply_format for template in load_prompts(parsing="published").templates.values()]
    assert set(formats) == {ReplyFormat()}
