"""The better against the worse response to each prompt."""

from dataclasses import asdict
from pathlib import Path

from longreward.formats import write_pairs
from longreward.jsonl import write_rows
from longreward.pairing import WithoutPair, pair_figures
from longreward.records import PreferencePair
from tasks.pairing import outcomes
from tasks.samples import PAIR_COLUMNS, Sample, pair_cells
from tasks.stage import StageRun, main, stage

OUT = Path("data/pairs")


@stage
async def pair(run: StageRun) -> None:
    """The better against the worse response to each prompt; a prompt without a pair is named with its reason."""
    found = await outcomes(run, OUT)
    pairs = [one for one in found if isinstance(one, PreferencePair)]
    sample = Sample(PAIR_COLUMNS, of=len(pairs))
    write_pairs(OUT / "preference_pairs.jsonl", sample.passing(pairs, pair_cells))
    write_rows(OUT / "without_pair.jsonl", (asdict(one) for one in found if isinstance(one, WithoutPair)))
    sample.keep(run.tracked, "pairs.json")
    run.tracked.tag({"pair.method": run.params.pair.method})
    run.report(pair_figures(found))


if __name__ == "__main__":
    main(pair)
