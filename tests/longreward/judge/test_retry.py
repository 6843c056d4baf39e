"""Retries: overloaded servers slow all calls down, and failures of single requests do not end the run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from virtual_time import in_virtual_time, run_in_virtual_time

from longreward.errors import JudgeUnavailable, TransientFailure
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply
from longreward.judge.retry import PROBE_REQUEST, backoff_s


def request_number(number: int) -> ChatRequest:
    return ChatRequest("helpfulness", {}, f"q {number}", "h", 9)


def unavailable(**transient: Any) -> JudgeUnavailable:
    error = JudgeUnavailable("simulated")
    error.transient = TransientFailure(**transient)
    return error


class SimulatedServer:
    """Base of the simulated servers: counts requests and those in flight."""

    name = "simulated"

    def __init__(self) -> None:
        self.requests = self.in_flight = 0

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests += 1
        self.in_flight += 1
        try:
            return await self.reply(request)
        finally:
            self.in_flight -= 1

    async def reply(self, request: ChatRequest) -> ChatReply:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class SlotServer(SimulatedServer):
    """Processes `slots` requests at a time, first come, first served, each for `work_s` seconds.

    The client gives up after `timeout_s`. With `ignores_disconnects` the server works on all the same.
    """

    def __init__(self, slots: int, *, work_s: float, timeout_s: float, ignores_disconnects: bool) -> None:
        super().__init__()
        self.slots = asyncio.Semaphore(slots)
        self.work_s, self.timeout_s, self.ignores_disconnects = work_s, timeout_s, ignores_disconnects
        self._tasks: set[asyncio.Task[None]] = set()

    async def reply(self, request: ChatRequest) -> ChatReply:
        task = asyncio.create_task(self.work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(self.timeout_s):
                await asyncio.shield(task)
        except TimeoutError:
            if not self.ignores_disconnects:
                task.cancel()
            raise unavailable(timed_out=True) from None
        return ChatReply("[[7]]")

    async def work(self) -> None:
        async with self.slots:
            await asyncio.sleep(self.work_s)


class NarrowServer(SimulatedServer):
    """Fails requests beyond `capacity` concurrent ones with `failure`."""

    def __init__(self, capacity: int, failure: TransientFailure) -> None:
        super().__init__()
        self.capacity, self.failure = capacity, failure
        self.failures = 0

    async def reply(self, request: ChatRequest) -> ChatReply:
        is_full = self.in_flight > self.capacity
        await asyncio.sleep(0.01)
        if is_full:
            self.failures += 1
            error = JudgeUnavailable("full")
            error.transient = self.failure
            raise error
        return ChatReply("[[7]]")


async def query_all(judge: Judge, numbers: range) -> list[ParsedReply[str]]:
    queries = (judge.query(request_number(n), lambda text: text or None) for n in numbers)
    return await asyncio.gather(*queries)


def run_all(server: Any, count: int, **settings: Any) -> dict[str, float]:
    """Query a simulated server in virtual time; returns the metrics."""

    async def run() -> dict[str, float]:
        async with Judge.from_model(server, JudgeConfig(**settings)) as judge:
            assert {reply.value for reply in await query_all(judge, range(count))} == {"[[7]]"}
            return judge.metrics()

    return run_in_virtual_time(run())


@pytest.mark.parametrize("ignores_disconnects", [False, True])
def test_timeouts_lower_concurrency_until_server_can_follow(ignores_disconnects: bool) -> None:
    """4 slots, 32 requests in flight: the last of them would wait 80 s for a reply, and the client gives up at 60."""
    server = SlotServer(4, work_s=10, timeout_s=60, ignores_disconnects=ignores_disconnects)
    metrics = run_all(server, 104)
    assert metrics["calls"] == 104
    assert metrics["requests"] == server.requests == 104 + metrics["retries"]
    assert metrics["retries"] == metrics["timeouts"]
    assert 0 < metrics["timeouts"] <= 32
    assert metrics["concurrency"] < 24


def test_first_timeout_of_a_run_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """32 requests at 4 slots of 10 s: at 60 s 20 have their reply, and the others time out together."""
    server = SlotServer(4, work_s=10, timeout_s=60, ignores_disconnects=True)
    assert run_all(server, 104)["timeouts"] > 1
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.getMessage() == "simulated. It is sent again; requests at once: 16 of 32"


@in_virtual_time
async def test_timeout_without_retries_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    server = SlotServer(1, work_s=10, timeout_s=5, ignores_disconnects=False)
    async with Judge.from_model(server, JudgeConfig(max_retries=0)) as judge:
        with pytest.raises(JudgeUnavailable):
            await judge.query(request_number(1), lambda text: text or None)
    assert not caplog.records


def test_throughput_of_slow_server_measured_at_first_timeouts() -> None:
    """Six replies arrive within the 60 s after which the first call times out: six stay in flight from then on."""
    server = SlotServer(1, work_s=10, timeout_s=60, ignores_disconnects=True)
    assert run_all(server, 104)["timeouts"] < 70  # without adaptive more than 600, by halving alone 90


def test_without_adaptive_every_second_request_times_out() -> None:
    server = SlotServer(4, work_s=10, timeout_s=60, ignores_disconnects=True)
    assert run_all(server, 104, adaptive=False, max_retries=50)["timeouts"] > 80


def test_timed_out_request_keeps_slot_while_server_may_work_on_it() -> None:
    """One slot, one request at a time. The second takes 25 s, others 10 s; the client gives up after 20."""

    class OneSlowRequest(SlotServer):
        working = peak = 0

        async def work(self) -> None:
            self.working += 1
            self.peak = max(self.peak, self.working)
            self.work_s = 25 if self.requests == 2 else 10
            try:
                await super().work()
            finally:
                self.working -= 1

    server = OneSlowRequest(1, work_s=10, timeout_s=20, ignores_disconnects=True)
    metrics = run_all(server, 3, max_concurrency=1)
    assert (metrics["timeouts"], metrics["requests"]) == (1, 4)
    assert server.peak == 1


def test_closed_connections_lower_concurrency() -> None:
    server = NarrowServer(4, TransientFailure(disconnected=True))
    metrics = run_all(server, 200, max_retries=20)
    assert metrics["disconnects"] == server.failures
    assert metrics["concurrency"] < 8


@in_virtual_time
async def test_concurrency_follows_capacity_of_server() -> None:
    server = NarrowServer(4, TransientFailure(throttled=True, retry_after_s=0.025))
    async with Judge.from_model(server, JudgeConfig(max_concurrency=16)) as judge:
        assert {reply.value for reply in await query_all(judge, range(600))} == {"[[7]]"}
        assert server.failures == judge.metrics()["throttled"]
        assert 0 < server.failures < 300
        assert judge.metrics()["concurrency"] < 8
        server.capacity = 16
        await query_all(judge, range(600, 1200))
        assert judge._clients[0].retrying.limiter.concurrency_limit == 16


@in_virtual_time
async def test_retry_after_is_respected() -> None:
    class BusyServer(SimulatedServer):
        async def reply(self, request: ChatRequest) -> ChatReply:
            if self.requests <= 2:
                raise unavailable(throttled=True, retry_after_s=20.0)
            return ChatReply("[[7]]")

    server = BusyServer()
    async with Judge.from_model(server, JudgeConfig(max_retries=2)) as judge:
        assert [reply.value for reply in await query_all(judge, range(1))] == ["[[7]]"]
    assert asyncio.get_running_loop().time() == pytest.approx(40.0)
    assert server.requests == 3


@in_virtual_time
async def test_request_that_always_fails_ends_unscored_while_others_are_scored(tmp_path: Path) -> None:
    class SelectiveServer(SimulatedServer):
        async def reply(self, request: ChatRequest) -> ChatReply:
            await asyncio.sleep(0.01)
            if request.text == "q 0":
                raise unavailable()
            return ChatReply("[[7]]")

    async with Judge.from_model(SelectiveServer(), JudgeConfig(max_retries=3, max_concurrency=2)) as judge:
        first, *others = await query_all(judge, range(150))
        metrics = judge.metrics()
        assert (first.value, [reply.value for reply in others]) == (None, ["[[7]]"] * 149)
        assert "simulated" in (first.reason or "")
        assert (metrics["failed"], metrics["retries"]) == (1, 3)
        (alone,) = await query_all(judge, range(1))  # nothing is recorded, so it is sent again; the probe succeeds
        assert "simulated" in (alone.reason or "")


@in_virtual_time
async def test_server_that_fails_every_request_and_probe_ends_run() -> None:
    class BrokenServer(SimulatedServer):
        texts: list[str]

        async def reply(self, request: ChatRequest) -> ChatReply:
            self.texts = [*getattr(self, "texts", []), request.text]
            raise unavailable()

    server = BrokenServer()
    async with Judge.from_model(server, JudgeConfig(max_retries=2)) as judge:
        with pytest.raises(JudgeUnavailable, match="simulated"):
            await query_all(judge, range(1))
    assert server.texts == ["q 0"] * 3 + [PROBE_REQUEST.text]


def test_backoff_doubles_with_jitter_up_to_maximum() -> None:
    for failures, maximum in ((1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (50, 8.0)):
        assert 0.75 * maximum <= backoff_s(failures, TransientFailure()) <= maximum
    assert backoff_s(1, TransientFailure(retry_after_s=20.0)) == 20.0
    # The rate limiter pauses all calls instead.
    assert backoff_s(1, TransientFailure(throttled=True, retry_after_s=20.0)) == 0.0
