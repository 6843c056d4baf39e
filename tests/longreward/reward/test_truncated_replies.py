"""Scores from replies that were cut at their token limit: flagged and counted, or unscored, in files too."""

from pathlib import Path
from typing import Any

import pytest

from longreward.data.formats import read_chunk_info, read_scored, write_chunk_info, write_scored
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, Scorer
from longreward.reward.score_files import ScoreReport

CONFIG = ScoreConfig(evidence_chunk_tokens=8, evidence_chunks=2, extraction_chunk_tokens=16)
EXAMPLE = Example(
    id="1",
    document_id="1",
    context="Keld was begun once by Ann Lee. A mill was built in 1905. Bees were kept by Tom Ray. The lake froze.",
    query="Who founded Keld?",
)
REPLIES = {
    "helpfulness": "On the point.\nRating: [[8]]\n\n[Question]\nWho else",  # cut behind its verdict
    "logicality": "It says [[10]] of itself, which",  # cut before its verdict, until there is room
    "statements": "<statement>Ann Lee began Keld.</statement>\n<statement>Its mill is old.</statement>\n<state",
    "support": "In passage 1.\nSupport: [[Partially supported]]",
    "extraction": "1. Ann Lee began it.\n2. A mill was bui",
    "completeness": "Fine.\nRating: [[6]]",
}
LARGER = {"logicality": "It says [[10]] of itself, which is no mistake.\nRating: [[9]]"}


class TruncatingModel:
    """Cuts every reply but those of `support` and `completeness`; `logicality` fits into 1,000 tokens."""

    name = "cutting"

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        name = request.template
        if name in LARGER and request.max_tokens > 1000:
            return ChatReply(LARGER[name])
        return ChatReply(REPLIES[name], "stop" if name in ("support", "completeness") else "length")

    async def close(self) -> None:
        pass


async def score(**settings: Any) -> ScoredExample:
    response = Response(
        id="1-0", example_id="1", query=EXAMPLE.query, text="Ann Lee began Keld. Its mill is old. Bees."
    )
    async with Judge.from_model(TruncatingModel(), JudgeConfig(max_attempts=4, **settings)) as judge:
        return await Scorer(CONFIG).score(judge, EXAMPLE, [response])


async def test_complete_part_counted_and_flagged(tmp_path: Path) -> None:
    scored = await score(truncated_replies="complete_part")
    verdicts = scored.responses[0].verdicts
    assert {name: (verdict.score, verdict.truncated) for name, verdict in verdicts.items()} == {
        "helpfulness": (8.0, False),
        "logicality": (9.0, False),
        "faithfulness": (5.0, True),  # two statements, each partially supported; the third was cut
        "completeness": (6.0, True),
    }
    assert [(each.text, each.truncated) for each in scored.extraction.extracts] == [("1. Ann Lee began it.", True)] * 2
    report = ScoreReport()
    report.add(scored)
    assert (report.metrics()["truncated/faithfulness"], report.metrics()["truncated/completeness"]) == (1, 1)
    assert "truncated/helpfulness" not in report.metrics()
    write_scored(tmp_path / "scored.jsonl", scored.responses)
    write_chunk_info(tmp_path / "chunks.jsonl", [scored.extraction])
    assert list(read_scored(tmp_path / "scored.jsonl")) == list(scored.responses)
    assert list(read_chunk_info(tmp_path / "chunks.jsonl")) == [scored.extraction]


async def test_truncated_lists_unscored_by_default() -> None:
    verdicts = (await score()).responses[0].verdicts
    assert {name: verdict.score for name, verdict in verdicts.items()} == {
        "helpfulness": 8.0,
        "logicality": 9.0,
        "faithfulness": None,
        "completeness": None,
    }
    assert "cut at the token limit (4,096 tokens" in (verdicts["faithfulness"].reason or "")
    assert "2 of 2 parts" in (verdicts["completeness"].reason or "")


@pytest.mark.parametrize("setting", ["as_complete"])
async def test_truncated_replies_as_complete(setting: str) -> None:
    verdicts = (await score(truncated_replies=setting)).responses[0].verdicts
    assert (verdicts["faithfulness"].score, verdicts["faithfulness"].truncated) == (5.0, False)
    assert verdicts["logicality"].score == 10.0  # the quoted bracket: its last one
