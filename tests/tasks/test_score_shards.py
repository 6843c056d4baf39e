"""Scoring in shards: the error when nothing was scored, and batch mode on a Prefect server."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from recorded_run import RecordedRun
from unreadable_model import UnreadableModel

from longreward.errors import BatchPending, NothingScored
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.params import Params
from longreward.records import DIMENSIONS, Dimension, Example, Response, ScoredResponse, Verdict
from longreward.reward import ScoreConfig, Scorer
from longreward.reward.score_files import ScoreReport
from longreward.tasks.score_shards import require_scores, score_in_shards, write_scored_files
from longreward.tasks.stage import StageRun

EXAMPLE = Example(id="1", document_id="1", context="Ann Lee founded Keld in 1905.", query="Who founded Keld?")
RESPONSES = [
    Response(id=f"1-{n}", example_id="1", query=EXAMPLE.query, text=text)
    for n, text in enumerate(("Ann Lee did, in 1905.", "Nobody knows.", "It was Tom Ray."))
]


def stage_run(folder: Path) -> StageRun:
    recorded: Any = RecordedRun()
    return StageRun("score", Params(), folder, recorded, logging.getLogger("test"))


def make_scored(scores: dict[Dimension, float | None]) -> ScoredResponse:
    verdicts = {d: Verdict(score=scores.get(d), reason=None if d in scores else f"no {d}") for d in DIMENSIONS}
    return ScoredResponse(response=RESPONSES[0], verdicts=verdicts)


async def test_nothing_scored_counts_reasons_and_deletes_shards(tmp_path: Path) -> None:
    run = stage_run(tmp_path)
    shards = [tmp_path / name for name in ("score-50-00000.jsonl", "score-50-00001.jsonl")]
    other_file = tmp_path / "answers-sft-greedy-50-00000.jsonl"
    for file in (*shards, other_file):
        file.write_text("{}\n")
    async with Judge.from_model(UnreadableModel(), JudgeConfig(max_attempts=2, stop_after_unreadable=None)) as judge:
        scored = await Scorer(ScoreConfig()).score(judge, EXAMPLE, RESPONSES)
    report = write_scored_files(tmp_path / "scored", [scored], {})
    with pytest.raises(NothingScored) as raised:
        require_scores(run, report, "chatty", shards=["score"], usable=True)
    message = str(raised.value)
    assert "none of 3 responses got a score from the judge chatty" in message
    for dimension in DIMENSIONS:
        assert f"{dimension}: 3 unscored; the first: " in message
    assert "What a good answer!" in message
    assert not any(file.exists() for file in shards)
    assert other_file.exists()  # what the policy answered is not sampled again
    recorded: Any = run.mlflow
    assert recorded.metrics["unscored/logicality"] == 3
    assert len((tmp_path / "scored" / "unscored_responses.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("weights", "usable", "fails"),
    [
        ({}, False, False),  # some dimension has a score
        ({}, True, True),  # no pair can be made of it
        ({"completeness": 0.0}, True, False),  # pairs leave that dimension out
    ],
)
def test_require_scores_usable(tmp_path: Path, weights: dict[Dimension, float], usable: bool, fails: bool) -> None:
    report = ScoreReport({**dict.fromkeys(DIMENSIONS, 1.0), **weights})
    report.add_response(make_scored({"helpfulness": 7.0, "logicality": 9.0, "faithfulness": 5.0}))
    if not fails:
        require_scores(stage_run(tmp_path), report, "m", shards=["score"], usable=usable)
        return
    with pytest.raises(NothingScored, match=r"got a score in every dimension that pairs need.*\n  completeness: 1 uns"):
        require_scores(stage_run(tmp_path), report, "m", shards=["score"], usable=usable)


def test_require_scores_without_responses(tmp_path: Path) -> None:
    require_scores(stage_run(tmp_path), ScoreReport(), "m", shards=["score"], usable=True)


@pytest.mark.usefixtures("prefect_server")
async def test_concurrent_shards_share_batch_file(
    tmp_path: Path,
) -> None:
    items = [
        (
            Example(id=str(n), document_id=str(n), context=f"Ann Lee founded Keld {n}.", query=EXAMPLE.query),
            [Response(id=f"{n}-0", example_id=str(n), query=EXAMPLE.query, text=f"Ann Lee founded Keld {n}.")],
        )
        for n in range(5)
    ]
    judge_config = JudgeConfig(kind="vllm", model="m", mode="batch_files", batch={"prompts": 2, "settle_s": 0.3})
    config = ScoreConfig(prompts_in_flight=1, shard_size=1)

    @flow
    async def scoring() -> None:
        async with open_judge(judge_config, ledger=tmp_path / "l.sqlite") as judge, Scorer(config) as scorer:
            await score_in_shards("score", judge, items, config, scorer=scorer, folder=tmp_path / "shards")

    with pytest.raises(BatchPending, match=r"16 requests to the judge 'm' wait in 1 file"):
        await scoring()
    (file,) = tmp_path.glob("l.batches/*/*/requests.jsonl")
    prompts = [json.loads(line)["body"]["messages"][0]["content"] for line in file.read_text().splitlines()]
    assert {n for n in range(5) for text in prompts if f"Keld {n}" in text} == {0, 1, 2, 3}
