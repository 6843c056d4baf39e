"""The best against the worst response to each prompt."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from longreward.formats import read_examples, read_scored, write_pairs
from longreward.jsonl import write_rows
from longreward.pairing import WithoutPair, check_decided, make_pairs, pair_figures
from longreward.records import PreferencePair
from tasks.samples import PAIR_COLUMNS, Sample, pair_cells
from tasks.stage import StageRun, main, stage

SCORED = (Path("data/scored/scored_responses.jsonl"), Path("data/scored/unscored_responses.jsonl"))
OUT = Path("data/pairs")


@stage
async def pair(run: StageRun) -> None:
    """The best against the worst response to each prompt; a prompt without a pair is named with its reason."""
    outcomes = list(
        make_pairs(
            run.params.pair,
            read_examples(Path("data/prepared/preference.jsonl")),
            (scored for file in _filled(SCORED) for scored in read_scored(file)),
        )
    )
    check_decided(outcomes)
    pairs = [one for one in outcomes if isinstance(one, PreferencePair)]
    sample = Sample(PAIR_COLUMNS, of=len(pairs))
    write_pairs(OUT / "preference_pairs.jsonl", sample.passing(pairs, pair_cells))
    write_rows(OUT / "without_pair.jsonl", (asdict(one) for one in outcomes if isinstance(one, WithoutPair)))
    sample.keep(run.tracked, "pairs.json")
    run.report(pair_figures(outcomes))


def _filled(files: Iterable[Path]) -> list[Path]:
    """Those with a line: mostly nothing is unscored."""
    return [file for file in files if file.stat().st_size]


if __name__ == "__main__":
    main(pair)
