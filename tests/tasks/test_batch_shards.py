"""Scoring shards in batch mode on a Prefect server: concurrent shards share a round."""

import json
from pathlib import Path

import pytest
from prefect import flow

from longreward.errors import BatchPending
from longreward.judge import JudgeConfig, open_judge
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, Scorer
from longreward.tasks.score_shards import score_in_shards

pytestmark = pytest.mark.usefixtures("prefect_server")

QUERY = "Who founded Keld?"
ITEMS = [
    (
        Example(id=str(n), document_id=str(n), context=f"Ann Lee founded Keld {n}.", query=QUERY),
        [Response(id=f"{n}-0", example_id=str(n), query=QUERY, text=f"Ann Lee founded Keld {n}.")],
    )
    for n in range(5)
]


async def test_two_shards_write_their_requests_to_one_file_without_retries(
    tmp_path: Path,
) -> None:
    judge_config = JudgeConfig(kind="vllm", model="m", mode="batch_files", batch={"prompts": 2, "settle_s": 0.3})
    config = ScoreConfig(prompts_in_flight=1, shard_size=1)

    @flow
    async def scoring() -> None:
        async with open_judge(judge_config, ledger=tmp_path / "l.sqlite") as judge, Scorer(config) as scorer:
            await score_in_shards("score", judge, ITEMS, config, scorer=scorer, folder=tmp_path / "shards")

    with pytest.raises(BatchPending, match=r"16 requests to the judge 'm' wait in 1 file"):
        await scoring()
    (file,) = tmp_path.glob("l.batches/*/*/requests.jsonl")
    prompts = [json.loads(line)["body"]["messages"][0]["content"] for line in file.read_text().splitlines()]
    assert {n for n in range(5) for text in prompts if f"Keld {n}" in text} == {0, 1, 2, 3}
