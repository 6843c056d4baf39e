"""Two stages that take no time, for a toy project: `python toy.py prepare`. The raw text selects the failure."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from longreward.errors import ConfigError, JudgeUnavailable
from longreward.records import Evidence
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.tasks.stage import StageRun, main, stage

log = logging.getLogger("longreward.toy")


@stage
async def prepare(run: StageRun) -> None:
    """Letters, one a shard."""
    text = Path("data/raw/text.jsonl").read_text()
    tried_before = Path("tried").exists()
    Path("tried").touch()

    async def work(shard: Sequence[str], on_progress: OnProgress) -> list[Evidence]:
        worked = Path("worked")
        worked.write_text((worked.read_text() if worked.exists() else "") + shard[0])
        if shard[0] == "K" and not tried_before:
            os.kill(os.getpid(), signal.SIGKILL)
        if shard[0] == "S":
            await asyncio.sleep(60)
        return [Evidence(start=0, end=1, text=letter) for letter in shard]

    if text == "bad":
        raise ConfigError("the text is bad; write another one")
    if text == "down" and not tried_before:
        raise JudgeUnavailable("the judge is away")
    if text == "wait":  # until the test has killed the servers
        Path("waiting").touch()
        while not Path("go").exists():  # noqa: ASYNC110  # the test is another process
            await asyncio.sleep(0.05)
    records = await run_in_shards("letters", text, work, record=Evidence, folder=run.state, size=1)
    if text == "lost" and not tried_before:
        return  # without its output, so that DVC records nothing
    Path("data/prepared").mkdir(parents=True)
    Path("data/prepared/text").write_text("".join(record.text for record in records).upper())
    run.log_step(1, {"loss": 0.5})
    run.log_metrics({"pairs": len(text)})


@stage
async def pair(run: StageRun) -> None:
    """The text twice."""
    log.info("the library speaks")
    Path("data/pairs").mkdir(parents=True)
    Path("data/pairs/text").write_text(Path("data/prepared/text").read_text() * 2)
    run.mlflow.log_text("pair.txt", "twice")
    run.log_metrics({"pairs": 2})


if __name__ == "__main__":
    main({"prepare": prepare, "pair": pair}[sys.argv[1]])
