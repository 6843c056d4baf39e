"""Scores files in the published formats: examples and sampled responses in, scored responses out.

sft.jsonl + sampled_responses.jsonl  ->  scored_responses.jsonl               complete scores only
                                         scored_responses.unscored.jsonl      the others, with their reasons
                                         scored_responses.chunk_info.jsonl    the extracts of each prompt
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from longreward.errors import ConfigError, DataError
from longreward.formats import extraction_row, read_examples, read_responses, scored_row
from longreward.jsonl import read_rows, to_line, writing
from longreward.judging import Judge
from longreward.records import DIMENSIONS, Example, Response
from longreward.reward.config import ScoreConfig
from longreward.reward.scoring import Scorer, score_examples


@dataclass
class FilesReport:
    """What became of the responses."""

    prompts: int = 0
    complete: int = 0
    unscored: Counter[str] = field(default_factory=Counter)  # by dimension
    incomplete: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 0.0))  # over complete responses

    def means(self) -> dict[str, float]:
        """The mean of each dimension and of the reward over complete responses; empty where there are none."""
        if not self.complete:
            return {}
        means = {dimension: self.sums[dimension] / self.complete for dimension in DIMENSIONS}
        return means | {"reward": sum(means.values()) / len(means)}


def beside(out: Path, what: str) -> Path:
    """`scored_responses.unscored.jsonl` for `scored_responses.jsonl`."""
    return out.with_name(f"{out.stem}.{what}.jsonl")


async def score_files(
    judge: Judge,
    config: ScoreConfig,
    *,
    data: Path,
    responses: Path,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> FilesReport:
    """Scores every response of `responses` against its example in `data`; all files appear at the end, whole.

    Documents are read one at a time; the responses are held in memory. `progress(done, all)` counts prompts. Raises
    DataError for a record that cannot be used, ConfigError where `out` would replace an input, JudgeError where the
    judge fails: the answers so far are in the ledger then.
    """
    if out.resolve() in (data.resolve(), responses.resolve()):
        raise ConfigError(f"--out {out} would replace an input; choose another name")
    by_example = _grouped(responses)
    next(read_rows(data))  # missing or empty: an error before anything is made
    scorer = Scorer(config)
    report = FilesReport(prompts=len(by_example))
    with ExitStack() as stack:
        complete, unscored, chunk_info = (
            stack.enter_context(writing(path)) for path in (out, beside(out, "unscored"), beside(out, "chunk_info"))
        )
        examples = _with_responses(data, responses, by_example)

        def tell(done: int) -> None:
            if progress:
                progress(done, report.prompts)

        async for scored in score_examples(judge, config, examples, scorer=scorer, progress=tell):
            chunk_info.write(to_line(extraction_row(scored.extraction)))
            for one in scored.responses:
                (complete if one.complete else unscored).write(
                    to_line(scored_row(one, scored.extraction, scorer.settings))
                )
                _count(report, one.complete, {d: v.score for d, v in one.verdicts.items()})
    return report


def _count(report: FilesReport, complete: bool, scores: dict[str, float | None]) -> None:
    report.complete += complete
    report.incomplete += not complete
    for dimension in DIMENSIONS:
        score = scores.get(dimension)
        if score is None:
            report.unscored[dimension] += 1
        elif complete:
            report.sums[dimension] += score


def _grouped(path: Path) -> dict[str, list[Response]]:
    groups: dict[str, list[Response]] = {}
    seen: set[str] = set()
    for response in read_responses(path):
        if response.id in seen:
            raise DataError(f"{path}: idx {response.id} comes twice")
        seen.add(response.id)
        groups.setdefault(response.example_id, []).append(response)
    return groups


def _with_responses(
    data: Path, responses: Path, groups: dict[str, list[Response]]
) -> Iterator[tuple[Example, list[Response]]]:
    """The examples that have responses; raises DataError where a response's example is not there or asks otherwise."""
    missing = set(groups)
    for example in read_examples(data):
        group = groups.get(example.id)
        if group is None or example.id not in missing:
            continue
        missing.remove(example.id)
        if stray := next((response for response in group if response.query != example.query), None):
            raise DataError(f"{responses}: the query of {stray.id} is not that of example {example.id} in {data}")
        yield example, group
    if missing:
        raise DataError(
            f"{responses} has responses to {len(missing)} examples that are not in {data}, such as {min(missing)!r}"
        )
