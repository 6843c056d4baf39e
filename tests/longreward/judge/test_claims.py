"""Clients and processes that share a ledger send a request in flight once."""

import asyncio
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from virtual_time import in_virtual_time

from longreward.errors import JudgeUnavailable, StateError
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply
from longreward.judge.claims import Claims
from longreward.judge.ledger import Ledger
from longreward.reward.parsers import parse_rating

KEY, OTHER_KEY = "ab" * 32, "cd" * 32


class SlowModel:
    """Replies after ten seconds, or fails."""

    name = "m"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.texts: list[str] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.texts.append(request.text)
        await asyncio.sleep(10)
        if self.fails:
            raise JudgeUnavailable("it does not answer")
        return ChatReply("[[7]]")

    async def close(self) -> None:
        pass


def open_client(model: SlowModel, ledger: Path, **settings: int) -> Judge:
    return Judge.from_model(model, JudgeConfig(**settings), ledger=Ledger(ledger))  # type: ignore[arg-type]


def query(judge: Judge, text: str) -> "asyncio.Task[ParsedReply[float]]":
    return asyncio.ensure_future(judge.query(ChatRequest("helpfulness", {}, text, "h", 9), parse_rating))


@in_virtual_time
async def test_clients_share_work_and_send_no_request_twice(tmp_path: Path) -> None:
    models = [SlowModel(), SlowModel()]
    texts = [str(n) for n in range(24)]
    async with (
        open_client(models[0], tmp_path / "l", max_concurrency=4) as first,
        open_client(models[1], tmp_path / "l", max_concurrency=4) as second,
    ):
        replies = await asyncio.gather(*(query(judge, text) for text in texts for judge in (first, second)))
        metrics = [judge.metrics() for judge in (first, second)]
    assert {reply.value for reply in replies} == {7.0}
    assert sorted(models[0].texts + models[1].texts) == sorted(texts)
    assert [len(model.texts) for model in models] == [12, 12]
    # One client would take 60 s. A pause between two looks at a claim delays a reply by a tenth at most.
    assert asyncio.get_running_loop().time() <= 30 * 1.1 + 1
    assert [(m["calls"], m["ledger_hits"]) for m in metrics] == [(12, 12), (12, 12)]


@in_virtual_time
async def test_request_is_sent_after_other_client_failed(tmp_path: Path) -> None:
    models = [SlowModel(fails=True), SlowModel()]
    async with (
        open_client(models[0], tmp_path / "l", max_retries=0) as first,
        open_client(models[1], tmp_path / "l") as second,
    ):
        failing = query(first, "q")
        await asyncio.sleep(1)
        assert (await query(second, "q")).value == 7
        with pytest.raises(JudgeUnavailable):
            await failing
    assert [model.texts for model in models] == [["q"], ["q"]]


@in_virtual_time
async def test_claim_is_ignored_after_timeout_of_request(tmp_path: Path) -> None:
    """The claim of a process that was stopped never ends."""
    model = SlowModel()
    async with open_client(model, tmp_path / "l", timeout_s=60) as judge:
        stopped = Claims(tmp_path / "l")
        key = judge._clients[0]._key_for(ChatRequest("helpfulness", {}, "q", "h", 9))
        assert stopped.acquire(key)
        assert (await query(judge, "q")).value == 7
        assert 70 <= asyncio.get_running_loop().time() <= 72
        stopped.close()
    assert model.texts == ["q"]


HOLDER = """
import sys, time
from pathlib import Path
from longreward.judge.claims import Claims
claims = Claims(Path(sys.argv[1]))
assert claims.acquire(sys.argv[2])
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("locks_of_files", [True, False])
def test_killed_process_loses_its_claims(locks_of_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locks_of_files:  # as on platforms without them
        monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "l"), KEY]
    claims = Claims(tmp_path / "l")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert not claims.acquire(KEY)
        assert claims.acquire(OTHER_KEY)
        holder.kill()
        holder.wait()
    assert claims.acquire(KEY)
    claims.close()


def test_released_claim_is_free_and_other_claims_stay(tmp_path: Path) -> None:
    first, second = Claims(tmp_path / "l"), Claims(tmp_path / "l")
    assert first.acquire(KEY)
    assert first.acquire(KEY)
    assert first.acquire(OTHER_KEY)
    first.release(KEY)
    assert second.acquire(KEY)
    assert not second.acquire(OTHER_KEY)
    second.close()
    assert first.acquire(KEY)
    first.close()


def test_ledger_in_memory_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claims = Claims(None)
    assert claims.acquire(KEY)
    claims.release(KEY)
    claims.close()
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_locked_names_setting(tmp_path: Path) -> None:
    (tmp_path / "l.claims").mkdir()
    with pytest.raises(StateError, match=r"l\.claims: Is a directory.*LONGREWARD_STATE"):
        Claims(tmp_path / "l").acquire(KEY)
