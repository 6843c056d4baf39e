"""A server that can do less than it is asked for: all calls slow down together, and requests are not wasted."""

import asyncio
from typing import Any

import pytest
from virtual_time import run_in_virtual_time

from longreward.errors import JudgeUnavailable, TransientFailure
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig
from longreward.judge.http_client import HttpJudge
from longreward.utils.http_errors import ErrorMapper

FAULTS = ErrorMapper(server="judge", section="judge", key=None, key_env="K", timeout_s=1, connect_s=1)


class SlotServer:
    """Works on `slots` requests at a time, first come, first served, each for `work_s` seconds.

    A client gives up after `timeout_s`. `works_on`: the server does not notice and works on what nobody waits for.
    """

    name = "slots"

    def __init__(self, slots: int, *, work_s: float, timeout_s: float, works_on: bool) -> None:
        self.slots, self.work_s, self.timeout_s, self.works_on = asyncio.Semaphore(slots), work_s, timeout_s, works_on
        self.requests = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests += 1
        task = asyncio.create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(self.timeout_s):
                await asyncio.shield(task)
        except TimeoutError:
            if not self.works_on:
                task.cancel()
            fault = JudgeUnavailable("too slow")
            fault.transient = TransientFailure(timed_out=True)
            raise fault from None
        return ChatReply("[[7]]")

    async def _work(self) -> None:
        async with self.slots:
            await asyncio.sleep(self.work_s)

    async def close(self) -> None:
        pass


def question(number: int) -> ChatRequest:
    return ChatRequest("helpfulness", {}, f"q {number}", "h", 9)


def ask_all(server: Any, count: int, **settings: Any) -> dict[str, float]:
    async def run() -> dict[str, float]:
        async with Judge.from_model(server, JudgeConfig(**settings)) as judge:
            asked = (judge.query(question(n), lambda text: text or None) for n in range(count))
            assert {reading.value for reading in await asyncio.gather(*asked)} == {"[[7]]"}
            return judge.metrics()

    return run_in_virtual_time(run())


@pytest.mark.parametrize("works_on", [False, True])
def test_time_outs_lower_the_concurrency_until_the_server_can_follow(works_on: bool) -> None:
    """4 slots, 32 requests in flight: the last of them would wait 80 s for a reply, and the client gives up at 60."""
    server = SlotServer(4, work_s=10, timeout_s=60, works_on=works_on)
    figures = ask_all(server, 104)
    assert figures["calls"] == 104
    assert figures["requests"] == server.requests == 104 + figures["retries"]
    assert figures["retries"] == figures["timeouts"]
    assert 0 < figures["timeouts"] <= 32
    assert figures["concurrency"] < 24


def test_a_server_that_does_one_thing_at_a_time_is_found_out_at_the_first_time_outs() -> None:
    """Six replies came in the 60 s after which the first call timed out: six in flight do from then on."""
    server = SlotServer(1, work_s=10, timeout_s=60, works_on=True)
    figures = ask_all(server, 104)
    assert figures["timeouts"] < 70  # without adapting more than 600, by halving alone 90


def test_without_adapting_every_second_request_is_wasted() -> None:
    """What the test above would find if time-outs lowered nothing."""
    server = SlotServer(4, work_s=10, timeout_s=60, works_on=True)
    figures = ask_all(server, 104, adaptive=False, max_retries=50)
    assert figures["timeouts"] > 80


def test_a_timed_out_request_keeps_its_place_while_the_server_may_still_work_on_it() -> None:
    """One slot, one request at a time. The first takes 25 s, others 10 s; the client gives up after 20."""

    class OneLong(SlotServer):
        running = peak = 0

        async def _work(self) -> None:
            self.running += 1
            self.peak = max(self.peak, self.running)
            self.work_s = 25 if self.requests == 2 else 10
            try:
                await super()._work()
            finally:
                self.running -= 1

    server = OneLong(1, work_s=10, timeout_s=20, works_on=True)
    figures = ask_all(server, 3, max_concurrency=1)
    assert (figures["timeouts"], figures["requests"]) == (1, 4)
    assert server.peak == 1  # the retry came when the server was done with the request that nobody waited for


def test_broken_connections_lower_the_concurrency_too() -> None:
    class Resetting:
        name = "resetting"
        running = broken = 0

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            self.running += 1
            try:
                full = self.running > 4
                await asyncio.sleep(1)
                if full:
                    self.broken += 1
                    fault = JudgeUnavailable("connection reset")
                    fault.transient = TransientFailure(disconnected=True)
                    raise fault
                return ChatReply("[[7]]")
            finally:
                self.running -= 1

        async def close(self) -> None:
            pass

    server = Resetting()
    figures = ask_all(server, 200, max_retries=20)
    assert figures["disconnects"] == server.broken
    assert figures["concurrency"] < 8


def test_calls_slow_down_together_and_find_their_way_back() -> None:
    """Of 16 at once a server takes 4; it is not asked by many more for long, and every question is answered."""

    class Narrow:
        name = "narrow"
        running = turned_away = 0
        room = 4

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            self.running += 1
            try:
                full = self.running > self.room
                await asyncio.sleep(0.002)
                if full:
                    self.turned_away += 1
                    fault = JudgeUnavailable("full")
                    fault.transient = TransientFailure(throttled=True, retry_after_s=0.005)
                    raise fault
                return ChatReply("[[7]]")
            finally:
                self.running -= 1

        async def close(self) -> None:
            pass

    async def run() -> None:
        model = Narrow()
        async with Judge.from_model(model, JudgeConfig(max_concurrency=16)) as judge:
            readings = await asyncio.gather(*(judge.query(question(n), lambda text: text or None) for n in range(600)))
            assert {each.value for each in readings} == {"[[7]]"}
            assert model.turned_away == judge.metrics()["throttled"]
            assert 0 < model.turned_away < 300
            assert judge.metrics()["concurrency"] < 8
            model.room = 16
            await asyncio.gather(*(judge.query(question(n), lambda text: text or None) for n in range(600, 1200)))
            assert judge._clients[0][0].retrying.limiter.concurrency_limit == 16

    run_in_virtual_time(run())


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (408, TransientFailure(timed_out=True)),
        (504, TransientFailure(timed_out=True)),
        (429, TransientFailure(throttled=True)),
        (529, TransientFailure(throttled=True)),
        (500, TransientFailure()),
        (502, TransientFailure()),
    ],
)
def test_which_statuses_are_a_server_with_too_much_to_do(status: int, expected: TransientFailure) -> None:
    assert FAULTS.from_status(status, "{}").transient == expected


async def test_a_real_time_out_and_a_real_reset_count_as_overload_and_a_refused_connection_does_not() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    silent: list[asyncio.StreamWriter] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    found = []
    for serve in (hang_up, say_nothing, None):
        server = await asyncio.start_server(serve or hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if serve is None:
            server.close()  # nothing listens there any more
        url, timeout_s = f"http://127.0.0.1:{port}/v1", 1.0 if serve is say_nothing else 60.0
        judge = HttpJudge(JudgeConfig(kind="vllm", base_url=url, model="m", timeout_s=timeout_s))
        with pytest.raises(JudgeUnavailable) as failed:
            await judge.complete(question(0), temperature=0)
        found.append(failed.value.transient)
        await judge.close()
        server.close()
    for writer in silent:
        writer.close()
    assert found == [TransientFailure(disconnected=True), TransientFailure(timed_out=True), TransientFailure()]
