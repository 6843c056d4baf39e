"""A scoring run that is killed outright and gone on with, and two at once: real processes, a real server."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from child_server import child_server, stats

from longreward.data.formats import write_examples, write_responses
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.records import Example, Response
from longreward.reward.parsers import parse_rating

SERVER = Path(__file__).with_name("faulty_server.py")
NAMES = ("Ann Lee", "Tom Ray", "Mara Voss", "Jon Hale", "Eve Stone", "Max Orr")
CONCURRENCY = 4
OUTPUTS = ("out.jsonl", "out.unscored.jsonl", "out.chunk_info.jsonl")


def write_work(folder: Path) -> None:
    examples, responses = [], []
    for n, name in enumerate(NAMES):
        context = f"Keld was founded by {name} in 19{n}5. The mill was built in 19{n}9. " * 3
        examples.append(Example(id=str(n), document_id=str(n), context=context, query=f"What did {name} do?"))
        responses += [
            Response(
                id=f"{n}-{k}",
                example_id=str(n),
                query=f"What did {name} do?",
                text=f"{name} founded Keld in 19{n}5. The mill number {k} was built in 186{k}.",
            )
            for k in range(5)
        ]
    write_examples(folder / "data.jsonl", examples)
    write_responses(folder / "responses.jsonl", responses)


def start(work: Path, folder: Path, url: str) -> "subprocess.Popen[str]":
    """`longreward score` on the work, with outputs and ledger in `folder`."""
    folder.mkdir(exist_ok=True)
    settings = {
        "judge.kind": "http",
        "judge.base_url": url,
        "judge.model": "m",
        "judge.max_concurrency": CONCURRENCY,
        "score.prompts_in_flight": 2,
        "score.extraction_chunk_tokens": 24,
        "score.evidence_chunk_tokens": 12,
    }
    files = {"data": work / "data.jsonl", "responses": work / "responses.jsonl", "out": folder / "out.jsonl"}
    arguments = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    overrides = [word for name, value in settings.items() for word in ("-S", f"{name}={value}")]
    ledger = ["--ledger", str(work / "shared.sqlite" if folder.name.startswith("two") else folder / "ledger.sqlite")]
    command = [sys.executable, "-m", "longreward.flows.cli.main", "score", *arguments, *overrides, *ledger]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def outputs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTPUTS]


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bytes_and_repeats_only_what_was_in_flight(tmp_path: Path, kills: int) -> None:
    write_work(tmp_path)
    chance = random.Random(kills)
    with child_server(str(SERVER), "--latency", "0.01") as url:
        finish(start(tmp_path, tmp_path / "undisturbed", url))
    with child_server(str(SERVER), "--latency", "0.05") as url:
        for _ in range(kills):
            began, until = stats(url)["came"], chance.randrange(1, 14)
            process = start(tmp_path, tmp_path / "killed", url)
            while stats(url)["came"] < began + until and process.poll() is None:
                time.sleep(0.002)
            time.sleep(0.05 * chance.random())
            process.kill()
            process.communicate()
            assert process.returncode == -9, "it was to be killed before its end"
            assert not any((tmp_path / "killed" / name).exists() for name in OUTPUTS)
        finish(start(tmp_path, tmp_path / "killed", url))
        found = stats(url)
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "undisturbed")
    assert found["distinct"] <= found["came"] <= found["distinct"] + kills * CONCURRENCY
    assert sorted(path.name for path in (tmp_path / "killed").iterdir() if ".part" in path.name) == []


def test_two_runs_on_one_ledger_ask_nothing_that_either_has_an_answer_to(tmp_path: Path) -> None:
    write_work(tmp_path)
    with child_server(str(SERVER), "--latency", "0.02") as url:
        both = [start(tmp_path, tmp_path / "two-1", url), start(tmp_path, tmp_path / "two-2", url)]
        for process in both:
            finish(process)
        found = stats(url)
        assert found["late"] == 0
        assert ": 0 calls," in finish(start(tmp_path, tmp_path / "two-3", url))
        assert stats(url)["came"] == found["came"]
    assert outputs(tmp_path / "two-1") == outputs(tmp_path / "two-2") == outputs(tmp_path / "two-3")


async def test_what_another_process_answers_while_a_question_waits_for_its_turn_is_not_asked(tmp_path: Path) -> None:
    class Slow:
        name = "slow"

        def __init__(self) -> None:
            self.asked: list[str] = []

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            self.asked.append(request.text)
            if request.text == "first":
                first_asked.set()
                await answered_elsewhere.wait()
            await asyncio.sleep(0)
            return ChatReply("" if request.text == "unreadable" and temperature < 0.5 else "[[7]]")

        async def close(self) -> None:
            pass

    first_asked, answered_elsewhere = asyncio.Event(), asyncio.Event()
    here, there = Slow(), Slow()
    texts = ["first", "one", "unreadable", "two"]
    config = JudgeConfig(max_concurrency=1)
    async with (
        Judge.from_model(here, config, ledger=Ledger(tmp_path / "l")) as mine,
        Judge.from_model(there, config, ledger=Ledger(tmp_path / "l")) as other,
    ):

        async def ask(judge: Judge, text: str) -> float | None:
            return (await judge.query(ChatRequest("helpfulness", {}, text, "h", 9), parse_rating)).value

        waiting = asyncio.gather(*(ask(mine, text) for text in texts))
        await first_asked.wait()
        assert await asyncio.gather(*(ask(other, text) for text in texts[1:])) == [7.0, 7.0, 7.0]
        answered_elsewhere.set()
        assert await waiting == [7.0, 7.0, 7.0, 7.0]
        figures = mine.metrics()
    assert there.asked == ["one", "unreadable", "two", "unreadable"]
    assert here.asked == ["first"]
    assert (figures["calls"], figures["ledger_hits"], figures["unreadable"]) == (1, 4, 0)
