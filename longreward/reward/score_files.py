"""Score files in the published formats.

sft.jsonl + sampled_responses.jsonl  ->  scored_responses.jsonl               responses with all scores
                                         scored_responses.unscored.jsonl      other responses, with reasons or bounds
                                         scored_responses.chunk_info.jsonl    the extracts of each prompt
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from longreward.data.formats import (
    example_from_row,
    extraction_to_row,
    response_from_row,
    scored_from_row,
    scored_to_row,
)
from longreward.errors import ConfigError, DataError, NothingScored
from longreward.judge import Judge
from longreward.records import (
    DIMENSIONS,
    EQUAL_WEIGHTS,
    OPTIONAL_DIMENSIONS,
    Dimension,
    Example,
    Response,
    ScoredResponse,
)
from longreward.reward.adaptive import count_saved_requests, open_scorer
from longreward.reward.concurrent_scoring import score_examples
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import ScoredExample
from longreward.utils.jsonl import IndexedJsonl, open_atomic, to_line
from longreward.utils.plurals import pluralize

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
    bounded: int = 0
    """Responses with bounds instead of a reward (`score.strategy: adaptive`)."""
    saved_requests: int = 0
    """Requests that adaptive scoring did not need; see `count_saved_requests`."""

    def add(self, example: ScoredExample) -> None:
        """Add the responses to one prompt."""
        self.prompts += 1
        self.saved_requests += count_saved_requests(example.responses)
        for scored in example.responses:
            self.add_response(scored)

    def add_response(self, scored: ScoredResponse) -> None:
        """Add one response."""
        self.responses += 1
        self.usable += scored.reward_bounds(self.weights) is not None
        self.scored += any(verdict.score_bounds is not None for verdict in scored.verdicts.values())
        self.complete += scored.complete
        self.incomplete += scored.reward_bounds() is None
        self.bounded += not scored.complete and scored.reward_bounds() is not None
        for dimension, verdict in scored.verdicts.items():
            if verdict.truncated:
                self.truncated[dimension] = self.truncated.get(dimension, 0) + 1
            if verdict.score_bounds is None:
                self.unscored[dimension] = self.unscored.get(dimension, 0) + 1
                self.reasons.setdefault(dimension, verdict.reason or "no reason was recorded")
            elif scored.complete and verdict.score is not None:
                self.sums[dimension] = self.sums.get(dimension, 0.0) + verdict.score

    def require_scores(self, judge: str, *, usable: bool = False) -> None:
        """Raise NothingScored if no response has a score in any dimension, or with `usable`, none can be in a pair."""
        if not self.responses or (self.usable if usable else self.scored):
            return
        reasons = "\n".join(
            f"  {dimension}: {self.unscored[dimension]} unscored; the first: {self.reasons[dimension]}"
            for dimension in (*DIMENSIONS, *OPTIONAL_DIMENSIONS)
            if self.unscored.get(dimension)
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
        if not self.complete or self.bounded:
            return {}
        means: dict[str, float] = {name: total / self.complete for name, total in self.sums.items()}
        return means | {"reward": sum(means.values()) / len(means)}

    def metrics(self) -> dict[str, float]:
        """Return all counts and means as flat metrics."""
        counts = {"prompts": self.prompts, "complete": self.complete, "incomplete": self.incomplete}
        counts |= {f"unscored/{dimension}": count for dimension, count in self.unscored.items()}
        counts |= {f"truncated/{dimension}": count for dimension, count in self.truncated.items()}
        if self.saved_requests:
            counts |= {"not_needed": self.bounded, "saved/requests": self.saved_requests}
        return {name: float(count) for name, count in counts.items()} | self.means()


@contextmanager
def open_scored_files(
    *, complete: Path, unscored: Path, chunk_info: Path, settings: Mapping[str, Any], report: ScoreReport
) -> Iterator[Callable[[ScoredExample], None]]:
    """Yield a function that writes the extracts and responses of one example and adds them to `report`.

    The three files appear, complete, when the `with` block ends without an error.
    """
    # Temporary files until the end: a consumer never sees scores of a part of the prompts.
    with (
        open_atomic(complete) as complete_file,
        open_atomic(unscored) as unscored_file,
        open_atomic(chunk_info) as chunk_file,
    ):

        def write(example: ScoredExample) -> None:
            chunk_file.write(to_line(extraction_to_row(example.extraction, example.rubric)))
            for scored in example.responses:
                row = scored_to_row(scored, example.extraction, settings)
                (complete_file if scored.complete else unscored_file).write(to_line(row))
            report.add(example)

        yield write


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
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it")
    unscored, chunk_info = sibling_path(out, "unscored"), sibling_path(out, "chunk_info")
    for path in (out, unscored, chunk_info):
        if path.resolve() in (data.resolve(), responses.resolve()):
            raise ConfigError(f"--out {out} would overwrite the input {path}; choose another name")
    items = read_scoring_items(data, responses)
    report = ScoreReport()

    def on_progress(finished: int) -> None:
        if progress:
            progress(finished, len(items))

    on_progress(0)  # the first prompt may take minutes

    async with open_scorer(config, ledger=ledger) as scorer:
        with open_scored_files(
            complete=out, unscored=unscored, chunk_info=chunk_info, settings=scorer.settings, report=report
        ) as write:
            async for scored in score_examples(judge, scorer, items, progress=on_progress):
                write(scored)
    return report


class ScoringItems(Sequence[ExampleWithResponses]):
    """Examples with their responses, read from their files on access; only line offsets are in memory.

    10,000 documents of 32,000 tokens take more than a gigabyte.
    """

    def __init__(
        self,
        examples: IndexedJsonl[Example],
        responses: IndexedJsonl[Response],
        offsets: "Sequence[tuple[int, array[int]]]",
        by_example: "Mapping[str, array[int]]",
    ) -> None:
        self._examples = examples
        self._responses = responses
        self._offsets = offsets  # of each example and of its responses
        self._by_example = by_example  # offsets of the responses to each example

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> ExampleWithResponses: ...
    @overload
    def __getitem__(self, index: slice) -> "ScoringItems": ...
    def __getitem__(self, index: int | slice) -> "ExampleWithResponses | ScoringItems":
        if isinstance(index, slice):
            return ScoringItems(self._examples, self._responses, self._offsets[index], self._by_example)
        example_offset, response_offsets = self._offsets[index]
        return self._examples[example_offset], [self._responses[offset] for offset in response_offsets]

    def responses_to(self, example_id: str) -> list[Response]:
        """Return the responses to an example, in the order of their file; none if it has none."""
        return [self._responses[offset] for offset in self._by_example.get(example_id, ())]


class ScoredResponses:
    """Scored responses, read from their files on access; only line offsets are in memory."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Find the responses to each example. Raises DataError for a missing or empty file and a malformed response."""
        self._files = [IndexedJsonl(file, scored_from_row) for file in files]
        self._by_example: list[dict[str, array[int]]] = [{} for _ in self._files]
        for file, by_example in zip(self._files, self._by_example, strict=True):
            # Verdicts, which are most of the work, are parsed on access.
            for offset, response in file.scan_as(response_from_row):
                by_example.setdefault(response.example_id, array("q")).append(offset)

    def to(self, example_id: str) -> list[ScoredResponse]:
        """Return the scored responses to an example, in the order of the files. Raises DataError for a bad row."""
        return [
            file[offset]
            for file, by_example in zip(self._files, self._by_example, strict=True)
            for offset in by_example.get(example_id, ())
        ]


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
    offsets: list[tuple[int, array[int]]] = []
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
        offsets.append((offset, group))
    if missing:
        raise DataError(
            f"{responses} has responses to {pluralize(len(missing), 'example')} not in {data}, such as {min(missing)!r}"
        )
    return ScoringItems(example_file, response_file, offsets, offsets_by_example)


def _query_mismatch(responses: Path, response: Response, data: Path) -> DataError:
    return DataError(
        f"{responses}: the query of {response.id} differs from that of example {response.example_id} in {data}"
    )
