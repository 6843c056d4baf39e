"""Make a better and a worse response to each prompt into a preference pair."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from longreward.data.formats import pair_to_row
from longreward.pairs.methods import pair_metrics
from longreward.pairs.outcomes import NoPair, Outcome
from longreward.tasks.evidence_pages import log_stage_page
from longreward.tasks.mlflow_samples import PAIR_COLUMNS, TableSample, pair_row
from longreward.tasks.pair_methods import make_pairs_by_method
from longreward.tasks.stage import StageRun, main, stage
from longreward.utils.jsonl import open_atomic, to_line

OUT = Path("data/pairs")


@stage
async def pair(run: StageRun) -> None:
    """Make a pair of responses to each prompt, or record the reason for none."""
    outcomes = await make_pairs_by_method(run, OUT)
    sample = TableSample(PAIR_COLUMNS)
    with (
        open_atomic(OUT / "preference_pairs.jsonl") as pairs_file,
        open_atomic(OUT / "without_pair.jsonl") as without_pair_file,
    ):

        def write_outcomes() -> Iterator[Outcome]:
            """Write each outcome when it is read, since all of them may exceed the memory."""
            for outcome in outcomes:
                if isinstance(outcome, NoPair):
                    without_pair_file.write(to_line(asdict(outcome)))
                else:
                    pairs_file.write(to_line(pair_to_row(outcome)))
                    sample.add(outcome, pair_row)
                yield outcome

        metrics = pair_metrics(write_outcomes())
    sample.log(run.mlflow, "pairs.json")
    run.mlflow.log_dataset("pairs", OUT / "preference_pairs.jsonl", "training")
    run.mlflow.set_tags({"pair.method": run.params.pair.method})
    run.log_metrics(metrics)
    log_stage_page(run, ["score", "pair"])


if __name__ == "__main__":
    main(pair)
