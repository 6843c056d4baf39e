"""Scoring against a real server of which three calls in ten go wrong, in every way that is known."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from child_server import child_server, stats

from longreward.errors import JudgeUnavailable
from longreward.judge import ChatRequest, JudgeConfig, open_judge
from longreward.judge.ledger import Ledger
from longreward.records import DIMENSIONS, Example, Response
from longreward.reward import ScoreConfig, score_examples
from longreward.reward.scorer import ScoredExample

SERVER = Path(__file__).with_name("faulty_server.py")
NOTICE = "content management policy"
NAMES = ("Ann Lee", "Tom Ray", "Mara Voss", "Jon Hale", "Eve Stone", "Max Orr")
CONFIG = ScoreConfig(evidence_chunk_tokens=12, evidence_chunks=2, extraction_chunk_tokens=24, prompts_in_flight=4)


def work() -> list[tuple[Example, list[Response]]]:
    """Six prompts of five responses."""
    made = []
    for n, name in enumerate(NAMES):
        context = f"Keld was founded by {name} in 19{n}5. The mill was built in 19{n}9. " * 3
        example = Example(id=str(n), document_id=str(n), context=context, query=f"What did {name} do?")
        texts = [f"{name} founded Keld in 19{n}5. The mill number {k} was built in 186{k}." for k in range(5)]
        made.append(
            (
                example,
                [
                    Response(id=f"{n}-{k}", example_id=str(n), query=example.query, text=text)
                    for k, text in enumerate(texts)
                ],
            )
        )
    return made


async def score(url: str, ledger: Path, **settings: Any) -> tuple[list[ScoredExample], dict[str, float]]:
    fields = {"kind": "http", "base_url": url, "model": "m", "timeout_s": 1.2, "max_concurrency": 16} | settings
    async with open_judge(JudgeConfig(**fields), ledger=ledger) as judge:
        return [one async for one in score_examples(judge, CONFIG, work())], judge.metrics()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.retry.INITIAL_BACKOFF_S", 0.02)
    monkeypatch.setattr("longreward.judge.retry.MAX_BACKOFF_S", 0.1)


@pytest.mark.usefixtures("quick_retries")
async def test_every_response_ends_scored_or_unscored_with_a_reason_whatever_the_server_does(tmp_path: Path) -> None:
    with child_server(str(SERVER), "--rate", "0.3", "--latency", "0.005") as url:
        scored, figures = await score(url, tmp_path / "l.sqlite")
        met = stats(url)
        again, second = await score(url, tmp_path / "l.sqlite")
    with child_server(str(SERVER)) as url:
        undisturbed, _ = await score(url, tmp_path / "well.sqlite")

    assert len(met["met"]) >= 15, met["met"]  # nearly every kind of fault was met
    assert [[r.response.id for r in one.responses] for one in scored] == [
        [f"{n}-{k}" for k in range(5)] for n in range(6)
    ]
    for one in scored:
        for response in one.responses:
            for dimension in DIMENSIONS:
                verdict = response.verdicts[dimension]
                assert (verdict.score is None) == (verdict.reason is not None), verdict
    whole = [response.complete for one in scored for response in one.responses]
    assert sum(whole) >= 8  # most calls are answered in the end, though a notice is final
    same = [
        ours.verdicts[dimension].score == theirs.verdicts[dimension].score
        for mine, well in zip(scored, undisturbed, strict=True)
        for ours, theirs in zip(mine.responses, well.responses, strict=True)
        for dimension in ("helpfulness", "logicality")
        if ours.verdicts[dimension].score is not None
    ]
    assert all(same)
    assert len(same) > 40

    with Ledger(tmp_path / "l.sqlite") as ledger:
        rows = ledger._rows("SELECT text, outcome, finish_reason FROM exchanges")
    assert not [text for text, outcome, _ in rows if outcome == "readable" and NOTICE in text]
    assert len(rows) == figures["calls"] - figures["failed"]
    assert figures["retries"] > 10
    assert figures["throttled"] == met["met"]["429"] + met["met"]["429-after"] + met["met"]["503"]
    # each request is an exchange in the ledger, or a failed try, or asked after the server: none was counted twice
    tries = len(rows) + figures["retries"] + figures["failed"]
    assert tries <= met["came"] <= tries + figures["failed"]
    if not figures["failed"]:  # what failed is asked again
        assert (again, second["calls"]) == (scored, 0)


@pytest.mark.usefixtures("quick_retries")
async def test_one_question_that_always_fails_ends_unscored_while_the_others_are_scored(
    tmp_path: Path, serve_chat: Any, completion: Any
) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        poison = "poison" in request["messages"][0]["content"]
        return (500, {"error": {"message": "cannot"}}) if poison else (200, completion("[[7]]"))

    with serve_chat(answer) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", max_retries=3, max_concurrency=2)
        async with open_judge(config, ledger=tmp_path / "l") as judge:
            asked = [ChatRequest("helpfulness", {}, "poison" if n == 0 else f"q {n}", "h", 9) for n in range(150)]
            readings = await asyncio.gather(*(judge.query(each, lambda text: text or None) for each in asked))
            figures = judge.metrics()
        assert readings[0].value is None
        assert "answered 500 to every retry" in readings[0].reason
        assert [each.value for each in readings[1:]] == ["[[7]]"] * 149
        assert (figures["failed"], figures["retries"]) == (1, 3)
        async with open_judge(config, ledger=tmp_path / "l") as judge:  # asked again, and alone now
            assert "500" in ((await judge.query(asked[0], lambda text: text or None)).reason or "")


@pytest.mark.usefixtures("quick_retries")
async def test_a_server_that_answers_nothing_at_all_ends_the_run(serve_chat: Any) -> None:
    with serve_chat(lambda request: (500, {"error": {"message": "cannot"}})) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", max_retries=2)
        async with open_judge(config, ledger=None) as judge:
            with pytest.raises(JudgeUnavailable, match="500 to every retry"):
                await judge.query(ChatRequest("helpfulness", {}, "q", "h", 9), lambda text: text or None)
        assert len(server.bodies) == 4  # three tries and a tiny question
