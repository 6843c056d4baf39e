"""The better against the worse response to each prompt."""

from dataclasses import asdict
from pathlib import Path

from longreward.data.formats import write_pairs
from longreward.pairs.methods import pair_metrics
from longreward.pairs.selection import NoPair
from longreward.records import PreferencePair
from longreward.tasks.mlflow_samples import PAIR_COLUMNS, TableSample, pair_cells
from longreward.tasks.pair_methods import make_pairs_by_method
from longreward.tasks.stage import StageRun, main, stage
from longreward.utils.jsonl import write_rows

OUT = Path("data/pairs")


@stage
async def pair(run: StageRun) -> None:
    """The better against the worse response to each prompt; a prompt without a pair is named with its reason."""
    found = await make_pairs_by_method(run, OUT)
    pairs = [one for one in found if isinstance(one, PreferencePair)]
    sample = TableSample(PAIR_COLUMNS, of=len(pairs))
    write_pairs(OUT / "preference_pairs.jsonl", sample.passing(pairs, pair_cells))
    write_rows(OUT / "without_pair.jsonl", (asdict(one) for one in found if isinstance(one, NoPair)))
    sample.keep(run.tracked, "pairs.json")
    run.tracked.tag({"pair.method": run.params.pair.method})
    run.report(pair_metrics(found))


if __name__ == "__main__":
    main(pair)
