"""Asking through the ledger: re-asking, sharing, going on after a kill, and what is counted."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from virtual_time import in_virtual_time

from longreward.errors import ConfigError, JudgeRefused, JudgeUnavailable, RequestRefused
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, TokenUsage, open_judge
from longreward.judge.ledger import Ledger


def question(text: str) -> ChatRequest:
    return ChatRequest("helpfulness", {}, text, "hash", 512)


def read(text: str) -> float | None:
    found = re.findall(r"\[\[(\d+)\]\]", text)
    return float(found[-1]) if found else None


class Scripted:
    """A ChatModel that answers from a table: for each text, what it says at each call in turn, the last for ever."""

    def __init__(self, table: dict[str, list[str | Exception]], pause: float = 0.0) -> None:
        self.table = table
        self.pause = pause
        self.asked: list[tuple[str, float]] = []

    @property
    def name(self) -> str:
        return "scripted"

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        turn = Counter(text for text, _ in self.asked)[request.text]
        self.asked.append((request.text, temperature))
        await asyncio.sleep(self.pause)
        lines = self.table[request.text]
        said = lines[min(turn, len(lines) - 1)]
        if isinstance(said, Exception):
            raise said
        return ChatReply(said, "stop", TokenUsage(100, 10, 5))

    async def close(self) -> None:
        pass


async def test_a_readable_answer_is_asked_for_once_and_then_served(tmp_path: Path) -> None:
    model = Scripted({"q": ["good: [[7]]"]})
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        first = await judge.query(question("q"), read)
        again = await judge.query(question("q"), read)
    assert (first.value, first.reason, first.attempts, first.calls) == (7.0, None, 1, 1)
    assert (again.value, again.calls, again.usage) == (7.0, 0, TokenUsage(100, 10, 5))
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        assert (await judge.query(question("q"), read)).value == 7.0
        assert judge.metrics()["ledger_hits"] == 1
    assert model.asked == [("q", 0.01)]


async def test_an_unreadable_answer_is_asked_again_at_the_retry_temperature() -> None:
    model = Scripted({"q": ["hm", "well", "[[3]]"]})
    async with Judge.from_model(model) as judge:
        reading = await judge.query(question("q"), read)
        assert (reading.value, reading.attempts, reading.calls) == (3.0, 3, 3)
        assert reading.usage == TokenUsage(300, 30, 15)
        assert judge.metrics() == {
            "calls": 3,
            "ledger_hits": 0,
            "shared": 0,
            "prompt_tokens": 300,
            "completion_tokens": 30,
            "cached_tokens": 15,
            "unreadable": 2,
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
    assert [temperature for _, temperature in model.asked] == [0.01, 0.95, 0.95]


async def test_an_unreadable_question_is_asked_again_by_a_new_run_and_not_within_one(tmp_path: Path) -> None:
    model = Scripted({"q": ["no verdict at all", "none", "nor here", "nothing", "[[7]]"]})
    async with Judge.from_model(model, JudgeConfig(max_attempts=2), Ledger(tmp_path / "l.sqlite")) as judge:
        for calls in (2, 0):  # a shard that is tried again finds the question as this run left it
            reading = await judge.query(question("q"), read)
            assert (reading.value, reading.calls, reading.attempts) == (None, calls, 2)
            assert "no readable answer in 2 attempts" in (reading.reason or "")
            assert len(model.asked) == 2
    async with Judge.from_model(model, JudgeConfig(max_attempts=2), Ledger(tmp_path / "l.sqlite")) as judge:
        assert (await judge.query(question("q"), read)).attempts == 4
    async with Judge.from_model(model, JudgeConfig(max_attempts=2), Ledger(tmp_path / "l.sqlite")) as judge:
        reading = await judge.query(question("q"), read)  # the judge was mended meanwhile
        assert (reading.value, reading.calls, reading.attempts) == (7.0, 1, 5)
    assert [temperature for _, temperature in model.asked] == [0.01, 0.95, 0.01, 0.95, 0.01]
    async with Judge.from_model(model, JudgeConfig(max_attempts=2), Ledger(tmp_path / "l.sqlite")) as judge:
        assert (await judge.query(question("q"), read)).calls == 0
    with Ledger(tmp_path / "l.sqlite") as ledger:
        totals = ledger.totals()
    assert (totals.exchanges, totals.unreadable) == (5, 4)


async def test_a_run_that_was_interrupted_between_attempts_goes_on_with_the_next_one(tmp_path: Path) -> None:
    model = Scripted({"q": ["hm", "well", JudgeUnavailable("down"), "so", "no", "again"]})
    config = JudgeConfig(max_attempts=4)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l.sqlite")) as judge:
        with pytest.raises(JudgeUnavailable):
            await judge.query(question("q"), read)
    async with Judge.from_model(model, config, Ledger(tmp_path / "l.sqlite")) as judge:
        reading = await judge.query(question("q"), read)
    assert (reading.value, reading.calls, reading.attempts) == (None, 2, 4)
    assert [temperature for _, temperature in model.asked] == [0.01, 0.95, 0.95, 0.95, 0.95]


async def test_another_retry_temperature_asks_only_what_stayed_unreadable(tmp_path: Path) -> None:
    model = Scripted({"good": ["[[1]]"], "bad": ["hm"]})
    for retry in (0.9, 0.5):
        config = JudgeConfig(max_attempts=2, retry_temperature=retry)
        async with Judge.from_model(model, config, Ledger(tmp_path / "l.sqlite")) as judge:
            await judge.query(question("good"), read)
            await judge.query(question("bad"), read)
    assert model.asked == [("good", 0.01), ("bad", 0.01), ("bad", 0.9), ("bad", 0.5)]


async def test_a_refused_question_ends_with_the_reason_and_is_never_asked_again(tmp_path: Path) -> None:
    model = Scripted({"q": [RequestRefused("content filter")]})
    for _ in range(2):
        async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
            reading = await judge.query(question("q"), read)
            assert (reading.value, reading.reason) == (None, "content filter")
    assert len(model.asked) == 1


async def test_a_judge_that_is_down_raises_and_what_was_answered_stays(tmp_path: Path) -> None:
    model = Scripted({"a": ["[[1]]"], "b": [JudgeUnavailable("down"), "[[2]]"]})
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        await judge.query(question("a"), read)
        with pytest.raises(JudgeUnavailable, match="down"):
            await judge.query(question("b"), read)
        assert (await judge.query(question("b"), read)).value == 2.0
    async with Judge.from_model(model, ledger=Ledger(tmp_path / "l.sqlite")) as judge:
        assert (await judge.query(question("a"), read)).calls == 0


@in_virtual_time
async def test_equal_questions_in_flight_are_asked_once() -> None:
    model = Scripted({"q": ["[[4]]"]}, pause=0.02)
    async with Judge.from_model(model) as judge:
        readings = await asyncio.gather(*(judge.query(question("q"), read) for _ in range(10)))
        assert [reading.value for reading in readings] == [4.0] * 10
        assert sum(reading.calls for reading in readings) == 1
        assert judge.metrics()["shared"] == 9
    assert len(model.asked) == 1


@in_virtual_time
async def test_cancelling_one_who_waits_leaves_the_others_their_answer() -> None:
    model = Scripted({"q": ["[[4]]"]}, pause=0.02)
    async with Judge.from_model(model) as judge:
        first = asyncio.create_task(judge.query(question("q"), read))
        await asyncio.sleep(0.005)
        second = asyncio.create_task(judge.query(question("q"), read))
        await asyncio.sleep(0.005)
        first.cancel()
        assert (await second).value == 4.0
        assert first.cancelled()
    assert len(model.asked) == 1


@in_virtual_time
async def test_a_question_that_nobody_waits_for_any_more_is_dropped_and_can_be_asked_anew() -> None:
    model = Scripted({"q": ["[[4]]"]}, pause=0.02)
    async with Judge.from_model(model) as judge:
        first = asyncio.create_task(judge.query(question("q"), read))
        await asyncio.sleep(0.005)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await judge.query(question("q"), read)).value == 4.0


@in_virtual_time
async def test_calls_in_flight_stay_within_the_configured_concurrency() -> None:
    class Counting(Scripted):
        running = peak = 0

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                return await super().complete(request, temperature=temperature)
            finally:
                self.running -= 1

    model = Counting({str(n): ["[[4]]"] for n in range(30)}, pause=0.002)
    async with Judge.from_model(model, JudgeConfig(max_concurrency=4)) as judge:
        await asyncio.gather(*(judge.query(question(str(n)), read) for n in range(30)))
    assert model.peak == 4


async def test_the_offline_judge_refuses_a_template_that_it_has_no_rule_for() -> None:
    async with open_judge(JudgeConfig(), ledger=None) as judge:
        assert judge.name == "offline-lexical-2"
        with pytest.raises(JudgeRefused, match="'poetry'"):
            await judge.query(ChatRequest("poetry", {}, "", "", 10), read)


ASKER = """
import asyncio, sys, time
from pathlib import Path
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig
from longreward.judge.ledger import Ledger

class Slow:
    name = "slow"
    async def complete(self, request, *, temperature):
        await asyncio.sleep(0.02)
        with open(sys.argv[2], "a") as log:
            log.write(request.text + "\\n")
        return ChatReply("[[1]]")
    async def close(self): pass

async def main():
    async with Judge.from_model(Slow(), JudgeConfig(max_concurrency=1), Ledger(Path(sys.argv[1]))) as judge:
        for n in range(40):
            await judge.query(ChatRequest("t", {}, str(n), "h", 8), lambda text: text)
asyncio.run(main())
"""


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    ledger, log = tmp_path / "l.sqlite", tmp_path / "log"
    run = [sys.executable, "-c", ASKER, str(ledger), str(log)]
    process = subprocess.Popen(run)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not log.exists() or log.read_text().count("\n") < 10):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = log.read_text().split()
    assert 10 <= len(before) < 40
    subprocess.run(run, check=True, timeout=60)
    asked = Counter(log.read_text().split())
    assert set(asked) == {str(n) for n in range(40)}
    # The kill may fall between the log's line and the ledger's row: that one answer was never ours.
    assert [n for n, times in asked.items() if times > 1] in ([], [before[-1]])


def test_a_secret_put_where_its_variable_s_name_belongs_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        JudgeConfig.parse({"api_key_env": "sk-very-secret"}, source="params.yaml")
    assert "sk-very-secret" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        JudgeConfig.parse({"base_url": "https://me:very-secret@host/v1"}, source="params.yaml")
    assert "very-secret" not in str(caught.value)


def test_an_http_judge_needs_a_model_s_name_and_a_plain_url() -> None:
    with pytest.raises(ConfigError, match=r"model: .*must name the model"):
        JudgeConfig.parse({"kind": "http"}, source="params.yaml")
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        JudgeConfig.parse({"base_url": "localhost:8000"}, source="params.yaml")
