"""Sample n responses of the SFT model to every preference prompt."""

from pathlib import Path

from longreward.data.formats import example_from_row, read_responses, write_responses
from longreward.tasks.sample_shards import sample_in_shards
from longreward.tasks.stage import StageRun, main, stage
from longreward.tasks.state import ledger_file
from longreward.tasks.workers import open_workers
from longreward.tasks.workers.cluster import open_worker_policy
from longreward.utils.jsonl import RecordsOnDisk

PREPARED = Path("data/prepared")
OUT = Path("data/sampled/sampled_responses.jsonl")


@stage
async def sample(run: StageRun) -> None:
    """Sample n responses to every preference prompt, or copy those that came with the data.

    If pairs came with the data (`prepare.pairs`), nothing is sampled and the file stays empty.
    """
    if run.params.prepare.pairs.source is not None:
        run.log_metrics({"responses": write_responses(OUT, ())})
        return
    if run.params.prepare.responses:
        run.log_metrics({"responses": write_responses(OUT, read_responses(PREPARED / "responses.jsonl"))})
        return
    examples = RecordsOnDisk(PREPARED / "preference.jsonl", example_from_row)
    async with (
        open_workers(run.params, state=run.state, ledger=ledger_file()) as workers,
        open_worker_policy(workers, run.params.policy, run.params.server, "models/sft", logs=run.state) as policy,
    ):
        sampled = await sample_in_shards("sample", policy, examples, run.params.sample, folder=run.state)
    write_responses(OUT, sampled.responses)
    run.log_metrics(sampled.report.metrics())
    if missing := sampled.report.without_token_ids:
        run.log.warning(
            "the policy's server gives no token ids for %d of %d responses (vLLM from 0.10.2 on and SGLang do): "
            "training has to render their texts, see train.token_mismatch",
            missing,
            sampled.report.responses,
        )


if __name__ == "__main__":
    main(sample)
