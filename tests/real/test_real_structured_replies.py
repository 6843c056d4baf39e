"""Replies in JSON from llama.cpp, which enforces the schema while it generates."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longreward.judge import JudgeConfig, open_judge
from longreward.judge.ledger.reader import LedgerReader
from longreward.judge.ledger.schema import EXCHANGES
from longreward.judge.prompts import load_prompts
from longreward.reward.parsers import parse_rating, parse_statements, parse_support

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
MODEL = "qwen-0.5b"
SLOTS = {
    "question": "Who founded Keld, and when?",
    "answer": 'Keld was founded by Ann Lee in 1905. She called it "home".',
    "statement": "Keld was founded by Ann Lee in 1905.",
    "context": "[Passage 1]\nKeld is a village. Ann Lee founded it in 1905.",
}
PARSERS: dict[str, Callable[[str], Any]] = {
    "helpfulness": parse_rating,
    "support": parse_support,
    "statements": lambda text: parse_statements(text, None),
}


@pytest.fixture(scope="module")
def judge_url(serve_gguf) -> Iterator[str]:
    with serve_gguf(f"{MODEL}.gguf", context=3072, slots=1) as url:
        yield url


async def test_schema_detected_and_every_reply_readable(judge_url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    config = JudgeConfig(
        kind="http", model=MODEL, base_url=judge_url, reply_format="auto", max_concurrency=1, timeout_s=600
    )
    requests = [load_prompts().template(name, "en").request(SLOTS) for name in PARSERS]

    async def query() -> tuple[list[Any], float]:
        async with open_judge(config, ledger=ledger) as judge:
            replies = [await judge.query(request, PARSERS[request.template]) for request in requests]
            assert all(reply.value is not None for reply in replies)
            return [(reply.value, reply.text) for reply in replies], judge.metrics()["calls"]

    replies, calls = await query()
    assert calls == len(PARSERS)  # none was unreadable
    assert await query() == (replies, 0)
    with LedgerReader(ledger) as reader:
        recorded = [dict(zip(EXCHANGES.columns, row.values, strict=True)) for row in reader.rows(EXCHANGES)]
    assert [row["template"] for row in recorded] == ["schema_support", *PARSERS]
    assert all(row["outcome"] == "readable" for row in recorded)
    properties = [list(json.loads(row["text"])) for row in recorded[1:]]
    assert properties == [["analysis", "rating"], ["analysis", "support"], ["statements"]]
