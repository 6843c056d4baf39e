"""Scoring with a real server that injects faults, killed runs, and two runs with one ledger, as real processes."""

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from child_server import child_server, server_stats

from longreward.data.formats import write_examples, write_responses
from longreward.judge import JudgeConfig, open_judge
from longreward.records import DIMENSIONS, Example, Response
from longreward.reward import ScoreConfig, open_scorer, score_examples
from longreward.reward.scorer import ScoredExample

SERVER = Path(__file__).with_name("faulty_server.py")
NOTICE = "content management policy"
NAMES = ("Ann Lee", "Tom Ray", "Mara Voss", "Jon Hale", "Eve Stone", "Max Orr")
CONFIG = ScoreConfig(evidence_chunk_tokens=12, evidence_chunks=2, extraction_chunk_tokens=24, prompts_in_flight=4)
CONCURRENCY = 4
OUTPUTS = ("out.jsonl", "out.unscored.jsonl", "out.chunk_info.jsonl")


def make_examples() -> list[tuple[Example, list[Response]]]:
    """Make six examples with five responses each."""
    examples = []
    for n, name in enumerate(NAMES):
        context = f"Keld was founded by {name} in 19{n}5. The mill was built in 19{n}9. " * 3
        example = Example(id=str(n), document_id=str(n), context=context, query=f"What did {name} do?")
        texts = [f"{name} founded Keld in 19{n}5. The mill number {k} was built in 186{k}." for k in range(5)]
        responses = [
            Response(id=f"{n}-{k}", example_id=str(n), query=example.query, text=text) for k, text in enumerate(texts)
        ]
        examples.append((example, responses))
    return examples


async def score(url: str, ledger: Path) -> tuple[list[ScoredExample], dict[str, float]]:
    config = JudgeConfig(kind="http", base_url=url, model="m", timeout_s=2.5, max_concurrency=16)
    async with open_judge(config, ledger=ledger) as judge:
        return [scored async for scored in score_examples(judge, open_scorer(CONFIG), make_examples())], judge.metrics()


async def test_responses_are_scored_or_unscored_with_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.retry.INITIAL_BACKOFF_S", 0.02)
    monkeypatch.setattr("longreward.judge.retry.MAX_BACKOFF_S", 0.1)
    with child_server(str(SERVER), "--rate", "0.3", "--latency", "0.005") as url:
        scored, metrics = await score(url, tmp_path / "l.sqlite")
        counts = server_stats(url)
        rescored, second_metrics = await score(url, tmp_path / "l.sqlite")
    with child_server(str(SERVER)) as url:
        without_faults, _ = await score(url, tmp_path / "other.sqlite")

    faults: dict[str, Any] = counts["faults"]
    assert len(faults) >= 15, faults  # nearly every kind occurred
    assert [[r.response.id for r in scored_example.responses] for scored_example in scored] == [
        [f"{n}-{k}" for k in range(5)] for n in range(6)
    ]
    for scored_example in scored:
        for response in scored_example.responses:
            for dimension in DIMENSIONS:
                verdict = response.verdicts[dimension]
                assert (verdict.score is None) == (verdict.reason is not None), verdict
    assert sum(response.complete for scored_example in scored for response in scored_example.responses) >= 8
    is_equal = [
        response.verdicts[dimension].score == expected.verdicts[dimension].score
        for scored_example, other in zip(scored, without_faults, strict=True)
        for response, expected in zip(scored_example.responses, other.responses, strict=True)
        for dimension in ("helpfulness", "logicality")
        if response.verdicts[dimension].score is not None
    ]
    assert all(is_equal)
    assert len(is_equal) > 40

    with sqlite3.connect(tmp_path / "l.sqlite") as database:
        rows = database.execute("SELECT text, outcome FROM exchanges").fetchall()
    assert not [text for text, outcome in rows if outcome == "readable" and NOTICE in text]
    assert len(rows) == metrics["calls"] - metrics["failed"]
    assert metrics["retries"] > 10
    # On a busy machine a request may time out on its way to the server, or its reply on the way back.
    timeouts = metrics["timeouts"]
    throttled = faults["429"] + faults["429-after"] + faults["503"]
    assert throttled - timeouts <= metrics["throttled"] <= throttled
    # Each request is an exchange in the ledger, a failed try or a probe after a failed one.
    tries = len(rows) + metrics["retries"] + metrics["failed"]
    assert tries - timeouts <= counts["requests"] <= tries + metrics["failed"]
    if not metrics["failed"]:  # failed requests are repeated
        assert (rescored, second_metrics["calls"]) == (scored, 0)


def write_inputs(folder: Path) -> None:
    examples = make_examples()
    write_examples(folder / "data.jsonl", [example for example, _ in examples])
    write_responses(folder / "responses.jsonl", [response for _, responses in examples for response in responses])


def start_run(inputs: Path, out: Path, ledger: Path, url: str) -> "subprocess.Popen[str]":
    """Start `longreward score`."""
    out.mkdir(exist_ok=True)
    settings = {
        "judge.kind": "http",
        "judge.base_url": url,
        "judge.model": "m",
        "judge.max_concurrency": CONCURRENCY,
        "score.prompts_in_flight": 2,
        "score.extraction_chunk_tokens": 24,
        "score.evidence_chunk_tokens": 12,
    }
    command = [sys.executable, "-m", "longreward.flows.cli.main", "score", "--data", str(inputs / "data.jsonl")]
    command += ["--responses", str(inputs / "responses.jsonl"), "--out", str(out / "out.jsonl")]
    command += ["--ledger", str(ledger)]
    command += [word for name, value in settings.items() for word in ("-S", f"{name}={value}")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_run(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out


def read_outputs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTPUTS]


@pytest.fixture(scope="module")
def concurrent_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Score twice at the same time with one ledger; returns the folder of both runs and the counts of the server."""
    folder = tmp_path_factory.mktemp("concurrent")
    write_inputs(folder)
    with child_server(str(SERVER), "--latency", "0.02") as url:
        runs = [start_run(folder, folder / name, folder / "shared.sqlite", url) for name in ("one", "two")]
        for run in runs:
            finish_run(run)
        return folder, server_stats(url)


def test_two_concurrent_runs_share_ledger(concurrent_runs: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = concurrent_runs
    assert counts["requests"] == counts["distinct"]
    assert read_outputs(folder / "one") == read_outputs(folder / "two")


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_run_resumes_to_same_bytes_and_repeats_only_requests_in_flight(
    concurrent_runs: tuple[Path, dict[str, Any]], tmp_path: Path, kills: int
) -> None:
    inputs, _ = concurrent_runs
    out, ledger = tmp_path / "killed", tmp_path / "ledger.sqlite"
    chance = random.Random(kills)
    with child_server(str(SERVER), "--latency", "0.02") as url:
        for _ in range(kills):
            kill_at = server_stats(url)["requests"] + chance.randrange(1, 14)
            process = start_run(inputs, out, ledger, url)
            while server_stats(url)["requests"] < kill_at and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            process.communicate()
            assert process.returncode == -9, "the run must not end before it is killed"
            assert not any((out / name).exists() for name in OUTPUTS)
        finish_run(start_run(inputs, out, ledger, url))
        counts = server_stats(url)
    assert read_outputs(out) == read_outputs(inputs / "one")
    distinct = counts["distinct"]
    assert distinct <= counts["requests"] <= distinct + kills * CONCURRENCY
    assert [path.name for path in out.iterdir() if ".part" in path.name] == []
