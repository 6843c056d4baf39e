"""The scores of the evaluated models in shards."""

import logging
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from recorded_run import RecordedRun
from unreadable_model import UnreadableModel

from longreward.errors import NothingScored
from longreward.judge import Judge, JudgeConfig
from longreward.params import Params
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, Scorer
from longreward.reward.score_files import ScoreReport
from longreward.tasks.evaluation_shards import score_answers, verdict_shards
from longreward.tasks.score_shards import require_scores
from longreward.tasks.stage import StageRun

EXAMPLES = [Example(id=id_, document_id="1", context="Ann Lee founded Keld.", query="Who?") for id_ in ("1", "2")]
ANSWERS = [
    [
        Response(id=f"{example.id}-{n}", example_id=example.id, query=example.query, text=text)
        for n, text in ((0, "Ann Lee."), (1, "Tom Ray."), (0, "Ann Lee."))  # the last one is of another decoding
    ]
    for example in EXAMPLES
]


@pytest.mark.usefixtures("prefect_server")
async def test_unusable_replies_are_requested_again(tmp_path: Path) -> None:
    recorded: Any = RecordedRun()
    run = StageRun("evaluate", Params(), tmp_path, recorded, logging.getLogger("test"))
    config = JudgeConfig(max_attempts=1, stop_after_unreadable=None)

    @flow
    async def evaluation() -> int:
        model, report = UnreadableModel(), ScoreReport()
        async with Judge.from_model(model, config) as judge, Scorer(ScoreConfig()) as scorer:
            scored = [*await score_answers(run, judge, scorer, "sft", EXAMPLES, ANSWERS)]
        assert [[answer.response for answer in example.responses] for example in scored] == ANSWERS
        for example in scored:
            for answer in example.responses:
                report.add_response(answer)
        with pytest.raises(NothingScored):
            require_scores(run, report, "chatty", shards=[verdict_shards("sft")])
        return model.requests

    requests = await evaluation()
    assert requests > 0
    assert await evaluation() == requests
