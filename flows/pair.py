"""Make a better and a worse response to each prompt into a preference pair."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from longreward.data.formats import write_pairs
from longreward.pairs.methods import pair_metrics
from longreward.pairs.outcomes import NoPair, Outcome
from longreward.records import PreferencePair
from longreward.tasks.evidence_pages import log_stage_page
from longreward.tasks.mlflow_samples import PAIR_COLUMNS, TableSample, pair_row
from longreward.tasks.pair_methods import make_pairs_by_method
from longreward.tasks.stage import StageRun, main, stage
from longreward.utils.jsonl import write_rows

OUT = Path("data/pairs")


@stage
async def pair(run: StageRun) -> None:
    """Make a pair of responses to each prompt, or record the reason for none."""
    outcomes: list[Outcome] = []

    def make_pairs() -> Iterator[PreferencePair]:
        for outcome in outcomes_by_prompt:
            if isinstance(outcome, PreferencePair):
                yield outcome
                outcome = outcome.model_copy(update={"context": ""})  # documents stay on disk
            outcomes.append(outcome)

    outcomes_by_prompt = await make_pairs_by_method(run, OUT)
    write_pairs(OUT / "preference_pairs.jsonl", make_pairs())
    write_rows(OUT / "without_pair.jsonl", (asdict(outcome) for outcome in outcomes if isinstance(outcome, NoPair)))
    pairs = [outcome for outcome in outcomes if isinstance(outcome, PreferencePair)]
    sample = TableSample(PAIR_COLUMNS, total=len(pairs))
    deque(sample.collect(pairs, pair_row), maxlen=0)
    sample.log(run.mlflow, "pairs.json")
    run.mlflow.log_dataset("pairs", OUT / "preference_pairs.jsonl", "training")
    run.mlflow.set_tags({"pair.method": run.params.pair.method})
    run.log_metrics(pair_metrics(outcomes))
    log_stage_page(run, ["score", "pair"])


if __name__ == "__main__":
    main(pair)
