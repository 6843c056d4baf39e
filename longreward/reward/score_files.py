"""Score files in the published formats.

sft.jsonl + sampled_responses.jsonl  ->  scored_responses.jsonl               responses with all scores
                                         scored_responses.unscored.jsonl      other responses, with reasons or bounds
                                         scored_responses.chunk_info.jsonl    the extracts of each prompt
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, overload

from longreward.data.formats import example_from_row, extraction_to_row, response_from_row, scored_to_row
from longreward.errors import ConfigError, DataError, NothingScored
from longreward.judge import Judge
from longreward.records import DIMENSIONS, EQUAL_WEIGHTS, Dimension, Example, Response, ScoredResponse
from longreward.reward.adaptive import open_scorer
from longreward.reward.concurrent_scoring import score_examples
from longreward.reward.config import ScoreConfig
from longreward.reward.savings import Savings
from longreward.reward.scorer import ScoredExample
from longreward.utils.jsonl import IndexedJsonl, open_atomic, to_line

ExampleWithResponses = tuple[Example, Sequence[Response]]


@dataclass
class ScoreReport:
    """Counts and means over scored responses."""

    weights: Mapping[Dimension, float] = field(default_factory=lambda: EQUAL_WEIGHTS)
    """The weights of the pairs: a dimension with weight 0 may be unscored."""
    prompts: int = 0
    responses: int = 0
    usable: int = 0
    """Responses that can take part in pairs."""
    scored: int = 0
    """Responses with a score, or bounds, in at least one dimension."""
    complete: int = 0
    """Responses with a score in every dimension."""
    incomplete: int = 0
    """Responses with an unscored dimension."""
    unscored: dict[Dimension, int] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 0))
    reasons: dict[Dimension, str] = field(default_factory=dict)
    """The first reason per unscored dimension."""
    sums: dict[Dimension, float] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 0.0))
    """Sums of scores over complete responses."""
    truncated: dict[Dimension, int] = field(default_factory=dict)
    """Scores that rest on the complete part of a truncated reply (`judge.truncated_replies: complete_part`)."""
    savings: Savings = field(default_factory=Savings)

    def add(self, example: ScoredExample) -> None:
        """Add the responses to one prompt."""
        self.prompts += 1
        self.savings.add(example.responses)
        for scored in example.responses:
            self.add_response(scored)

    def add_response(self, scored: ScoredResponse) -> None:
        """Add one response."""
        self.responses += 1
        self.usable += scored.reward_bounds(self.weights) is not None
        self.scored += any(verdict.score_bounds is not None for verdict in scored.verdicts.values())
        self.complete += scored.complete
        self.incomplete += scored.reward_bounds() is None
        for dimension in DIMENSIONS:
            verdict = scored.verdicts[dimension]
            if verdict.truncated:
                self.truncated[dimension] = self.truncated.get(dimension, 0) + 1
            if verdict.score_bounds is None:
                self.unscored[dimension] += 1
                self.reasons.setdefault(dimension, verdict.reason or "no reason was recorded")
            elif scored.complete and verdict.score is not None:
                self.sums[dimension] += verdict.score

    def require_scores(self, judge: str, *, usable: bool = False) -> None:
        """Raise NothingScored if no response has a score in any dimension, or with `usable`, none can be in a pair."""
        if not self.responses or (self.usable if usable else self.scored):
            return
        reasons = "\n".join(
            f"  {dimension}: {self.unscored[dimension]} unscored; the first: {self.reasons[dimension]}"
            for dimension in DIMENSIONS
            if self.unscored[dimension]
        )
        missing = "a score in every dimension that pairs need" if usable and self.scored else "a score"
        raise NothingScored(
            f"none of {self.responses:,} responses got {missing} from the judge {judge}:\n{reasons}\n"
            "Fix the judge (`longreward doctor` tests its prompts) and run again: unreadable replies are not reused"
        )

    def means(self) -> dict[str, float]:
        """Return the mean of each dimension and of the reward over complete responses.

        Empty if there are none, or if adaptive scoring left responses open: the mean of best and worst is misleading.
        """
        if not self.complete or self.savings.responses:
            return {}
        means: dict[str, float] = {name: total / self.complete for name, total in self.sums.items()}
        return means | {"reward": sum(means.values()) / len(means)}

    def metrics(self) -> dict[str, float]:
        """Return all counts and means as flat metrics."""
        counts = {"prompts": self.prompts, "complete": self.complete, "incomplete": self.incomplete}
        counts |= {f"unscored/{dimension}": count for dimension, count in self.unscored.items()}
        counts |= {f"truncated/{dimension}": count for dimension, count in self.truncated.items()}
        return {name: float(count) for name, count in counts.items()} | self.means() | self.savings.metrics()


class ScoredFilesWriter:
    """Writes the three files; they appear, complete, when the `with` block ends without an error."""

    def __init__(
        self,
        *,
        complete: Path,
        unscored: Path,
        chunk_info: Path,
        settings: Mapping[str, Any],
        weights: Mapping[Dimension, float] = EQUAL_WEIGHTS,
    ) -> None:
        self._paths = (complete, unscored, chunk_info)
        self._settings = settings
        self._stack = ExitStack()
        self.report = ScoreReport(weights)

    def __enter__(self) -> Self:
        # Temporary files until the end: a consumer never sees scores of a part of the prompts.
        self._files = [self._stack.enter_context(open_atomic(path)) for path in self._paths]
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def add(self, example: ScoredExample) -> None:
        """Write the extracts and responses of one prompt."""
        complete, unscored, chunk_info = self._files
        chunk_info.write(to_line(extraction_to_row(example.extraction)))
        for scored in example.responses:
            row = scored_to_row(scored, example.extraction, self._settings)
            (complete if scored.complete else unscored).write(to_line(row))
        self.report.add(example)


def sibling_path(out: Path, suffix: str) -> Path:
    """Return `scored_responses.unscored.jsonl` for `scored_responses.jsonl`."""
    return out.with_name(f"{out.stem}.{suffix}.jsonl")


async def score_files(
    judge: Judge,
    config: ScoreConfig,
    *,
    data: Path,
    responses: Path,
    out: Path,
    ledger: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreReport:
    """Score every response in `responses` against its example in `data`; all files appear complete at the end.

    Documents and responses are read when they are needed. `progress(finished, total)` counts prompts. Embeddings are
    kept at `ledger` (None: in memory). Raises DataError for an invalid record, ConfigError if `out` would overwrite an
    input, JudgeError if the judge or an embedding model fails; the ledger keeps the replies so far.
    """
    _check_output(out, data, responses)
    items = read_scoring_items(data, responses)

    def on_progress(finished: int) -> None:
        if progress:
            progress(finished, len(items))

    async with open_scorer(config, ledger=ledger) as scorer:
        writer = ScoredFilesWriter(
            complete=out,
            unscored=sibling_path(out, "unscored"),
            chunk_info=sibling_path(out, "chunk_info"),
            settings=scorer.settings,
        )
        with writer:
            async for scored in score_examples(judge, config, items, scorer=scorer, progress=on_progress):
                writer.add(scored)
    return writer.report


def _check_output(out: Path, *inputs: Path) -> None:
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it")
    for path in (out, sibling_path(out, "unscored"), sibling_path(out, "chunk_info")):
        if path.resolve() in {source.resolve() for source in inputs}:
            raise ConfigError(f"--out {out} would overwrite the input {path}; choose another name")


class ScoringItems(Sequence[ExampleWithResponses]):
    """Examples with their responses, read from their files on access; only line offsets are in memory.

    10,000 documents of 32,000 tokens take more than a gigabyte.
    """

    def __init__(
        self,
        examples: IndexedJsonl[Example],
        offsets: "array[int]",
        responses: IndexedJsonl[Response],
        response_offsets: "Sequence[array[int]]",
    ) -> None:
        self._examples = examples
        self._offsets = offsets
        self._responses = responses
        self._response_offsets = response_offsets

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> ExampleWithResponses: ...
    @overload
    def __getitem__(self, index: slice) -> "ScoringItems": ...
    def __getitem__(self, index: int | slice) -> "ExampleWithResponses | ScoringItems":
        if isinstance(index, slice):
            return ScoringItems(self._examples, self._offsets[index], self._responses, self._response_offsets[index])
        responses = [self._responses[offset] for offset in self._response_offsets[index]]
        return self._examples[self._offsets[index]], responses


def read_scoring_items(data: Path, responses: Path) -> ScoringItems:
    """Return the examples of `data` that have responses, in the order of `data`.

    Raises DataError for an invalid or duplicate record, and for a response whose example is missing or has another
    query.
    """
    # The first pass keeps offsets, ids and queries only; array("q") takes 8 bytes per response.
    response_file = IndexedJsonl(responses, response_from_row)
    offsets_by_example: dict[str, array[int]] = {}
    queries: dict[str, str] = {}
    response_ids: set[str] = set()
    for offset, response in response_file.scan():
        if response.id in response_ids:
            raise DataError(f"{responses}: duplicate idx {response.id}")
        response_ids.add(response.id)
        offsets_by_example.setdefault(response.example_id, array("q")).append(offset)
        # Responses to another query would be scored against the wrong question.
        if queries.setdefault(response.example_id, response.query) != response.query:
            raise _query_mismatch(responses, response, data)
    example_file = IndexedJsonl(data, example_from_row)
    offsets = array("q")
    response_offsets: list[array[int]] = []
    # Examples without responses are skipped; responses without an example are an error.
    missing = set(offsets_by_example)
    for offset, example in example_file.scan():
        group = offsets_by_example.get(example.id)
        if group is None:
            continue
        if example.id not in missing:
            raise DataError(f"{data}: duplicate idx {example.id}; it is unclear which one its responses answer")
        missing.remove(example.id)
        if queries.pop(example.id) != example.query:
            raise _query_mismatch(responses, response_file[group[0]], data)
        offsets.append(offset)
        response_offsets.append(group)
    if missing:
        raise DataError(
            f"{responses} has responses to {len(missing)} example(s) not in {data}, such as {min(missing)!r}"
        )
    return ScoringItems(example_file, offsets, response_file, response_offsets)


def _query_mismatch(responses: Path, response: Response, data: Path) -> DataError:
    return DataError(
        f"{responses}: the query of {response.id} differs from that of example {response.example_id} in {data}"
    )
