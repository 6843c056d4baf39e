"""`longreward score` in batch mode, killed and restarted, makes each request once and loses none."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_server import Provider, provider

from longreward.flows.cli.main import main

CONTEXT = "Keld was founded in 1905 by Ann Lee. It has a stone bridge. The market opened in 1931."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"idx": n, "query": f"Who founded Keld {n}?", "answer": "Ann Lee.", "context": CONTEXT} for n in range(4)]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    responses = [
        {"idx": f"{n}-{k}", "query": f"Who founded Keld {n}?", "answer": text}
        for n in range(4)
        for k, text in enumerate(["Keld was founded by Ann Lee in 1905.", "Tom Ray founded it. The market opened."])
    ]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in responses))
    return tmp_path


def arguments(server: Provider, ledger: str, mode: str) -> list[str]:
    settings = {
        "kind": "http",
        "base_url": server.url,
        "model": "m",
        "mode": mode,
        "batch": "{poll_s: 0.05, settle_s: 0.2, requests_per_file: 20}",
    }
    options = [part for name, value in settings.items() for part in ("-S", f"judge.{name}={value}")]
    files = ["--data", "sft.jsonl", "--responses", "responses.jsonl", "--out", f"{mode}.jsonl", "--ledger", ledger]
    return ["score", *files, *options]


def start(folder: Path, server: Provider, ledger: str, mode: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    command = [sys.executable, "-m", "longreward.flows.cli.main", *arguments(server, ledger, mode)]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def rows(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize("kills", [(6,), pytest.param((1, 2, 3, 4, 5, 7, 9, 12), marks=pytest.mark.slow)])
def test_killed_run_resumes_without_paying_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kills: tuple[int, ...]
) -> None:
    """`kills`: the number of HTTP requests after which each run is killed."""
    with provider(polls_until_done=2) as server:
        killed = 0
        for requests in kills:
            process = start(folder, server, "l.sqlite", "batch")
            until, before = time.monotonic() + 30, len(server.paths)
            while process.poll() is None and time.monotonic() < until and len(server.paths) - before < requests:
                time.sleep(0.002)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            process.communicate()
        last = start(folder, server, "l.sqlite", "batch")
        assert last.wait(60) == 0, last.communicate()
        last.communicate()
        monkeypatch.chdir(folder)
        assert main(arguments(server, "live.sqlite", "live")) == 0
    ids = [line["custom_id"] for line in server.requests()]
    assert killed > len(kills) // 2
    assert len(ids) == len(set(ids)) == len(server.live)
    assert rows(folder, "batch.jsonl") == rows(folder, "live.jsonl")
    with sqlite3.connect(folder / "l.sqlite") as batch_ledger, sqlite3.connect(folder / "live.sqlite") as live_ledger:
        query = "SELECT question, attempt, temperature, text, outcome FROM exchanges ORDER BY question"
        assert batch_ledger.execute(query).fetchall() == live_ledger.execute(query).fetchall()


def test_terminated_run_logs_batches_that_continue(folder: Path) -> None:
    with provider(polls_until_done=10**9) as server:
        process = start(folder, server, "l.sqlite", "batch")
        until = time.monotonic() + 30
        while time.monotonic() < until and not any("GET /v1/batches/" in path for path in server.paths):
            time.sleep(0.01)
        process.terminate()
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "batch_0" in stderr
    assert "continue at the judge 'm'" in stderr
    assert not any("cancel" in path for path in server.paths)


def test_run_with_files_for_another_program_prints_instructions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with provider() as server:
        assert main(arguments(server, "l.sqlite", "batch_files")) == 1
    assert "vllm run-batch -i requests.jsonl" in capsys.readouterr().err
    assert server.paths == []
