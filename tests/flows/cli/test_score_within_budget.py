"""`longreward score` stops at its budget, reports the remaining cost, and continues with a higher budget."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, chat_server, completion_body

from longreward.flows.cli.main import main

# Contains a verdict for every template.
REPLY = "<statement>It was founded in 1905.</statement> So says part 1. [[Fully supported]] [[7]]"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """Run a judge with one reply to everything."""
    usage = {"prompt_tokens": 200, "completion_tokens": 20}
    with chat_server(lambda body: (200, completion_body(REPLY) | {"model": "m", "usage": usage})) as running:
        yield running


def count_prompts(server: ChatServer) -> Counter[str]:
    """Count how often each prompt arrived."""
    return Counter(body["messages"][0]["content"] for body in server.bodies)


def test_score_stops_at_budget_and_continues_without_repeated_calls(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    queries = [f"When was town {n} founded?" for n in range(6)]
    _write("data.jsonl", [{"idx": str(n), "query": q, "context": f"Town {n}: 1905."} for n, q in enumerate(queries)])
    _write("sampled.jsonl", [{"idx": f"{n}-0", "query": q, "answer": f"In 1905, {n}."} for n, q in enumerate(queries)])
    # Six requests per prompt: two ratings, statements and one support, extraction and completeness.
    command = ["score", "--data", "data.jsonl", "--responses", "sampled.jsonl", "--out", "out.jsonl"]
    command += ["--ledger", "kept/ledger.sqlite", "-S", "score.prompts_in_flight=1"]
    judge = {"kind": "http", "base_url": server.url, "model": "m"}
    command += [part for name, value in judge.items() for part in ("-S", f"judge.{name}={value}")]
    command += ["-S", "prices.models={m: {prompt: 10, completion: 100}}"]

    assert main([*command, "-S", "score.budget.calls=20"]) == 1
    stderr = capsys.readouterr().err
    assert "score.budget.calls of 20 calls is reached: 20 calls, 4,400 tokens, 0.08 USD are spent" in stderr
    assert "3 of 6 prompts are complete; the rest needs about 16" in stderr
    assert len(server.bodies) == 20
    assert not Path("out.jsonl").exists()

    assert main([*command, "-S", "score.budget.calls=20"]) == 1
    assert len(server.bodies) == 20  # counted over all runs

    assert main([*command, "-S", "score.budget.calls=40", "-S", "judge.max_concurrency=3"]) == 0
    assert len(Path("out.jsonl").read_text().splitlines()) == 6
    assert set(count_prompts(server).values()) == {1}
    assert len(server.bodies) == 36
    assert "cost: 0.0640 USD" in capsys.readouterr().out  # of this run: 16 calls of 0.004
    assert list(Path("kept/budgets").iterdir()) == []  # the next scoring starts with its full budget

    assert main([*command, "-S", "score.budget.calls=1"]) == 0  # replies in the ledger are free
    assert len(server.bodies) == 36


def _write(name: str, rows: list[dict[str, str]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_money_budget_without_price_is_error_before_any_call(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "doc.txt").write_text("Town 1: 1905.")
    judge = ["-S", "judge.kind=vllm", "-S", f"judge.base_url={server.url}"]
    one = ["--context", str(tmp_path / "doc.txt"), "--query", "When?", "--response", "In 1905."]
    ledger = ["--ledger", str(tmp_path / "ledger.sqlite")]
    command = ["score", *one, *judge, *ledger, "-S", "judge.model=m", "-S", "score.budget.money=1"]
    assert main(command) == 1
    assert "the price of m is unknown: add it to prices.models" in capsys.readouterr().err
    assert not server.bodies
