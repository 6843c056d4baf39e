"""Scores files in the published formats: examples and sampled responses in, scored responses out.

sft.jsonl + sampled_responses.jsonl  ->  scored_responses.jsonl               complete scores only
                                         scored_responses.unscored.jsonl      the others, with reasons or bounds
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
from longreward.reward.adaptive import Savings
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import ScoredExample, Scorer, score_examples
from longreward.utils.jsonl import IndexedJsonl, open_atomic, to_line


@dataclass
class ScoreReport:
    """What became of the responses."""

    weights: Mapping[Dimension, float] = field(default_factory=lambda: EQUAL_WEIGHTS)
    """Those of the pairs: a dimension without weight may be unscored."""
    prompts: int = 0
    responses: int = 0
    usable: int = 0
    """Responses that can take part in pairs."""
    scored: int = 0
    """Responses with a score, or bounds, in any dimension."""
    complete: int = 0
    incomplete: int = 0
    unscored: dict[Dimension, int] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 0))
    reasons: dict[Dimension, str] = field(default_factory=dict)  # the first of each dimension
    sums: dict[Dimension, float] = field(
        default_factory=lambda: dict.fromkeys(DIMENSIONS, 0.0)
    )  # of complete responses
    truncated: dict[Dimension, int] = field(default_factory=dict)
    """Responses whose score rests on the complete part of a cut reply (`judge.truncated_replies: complete_part`)."""
    savings: Savings = field(default_factory=Savings)

    def count(self, scored: ScoredExample) -> None:
        """Takes in one prompt."""
        self.prompts += 1
        self.savings.count(scored.responses)
        for one in scored.responses:
            self.count_response(one)

    def count_response(self, one: ScoredResponse) -> None:
        """Takes in one response."""
        self.responses += 1
        self.usable += one.bounds(self.weights) is not None
        self.scored += any(verdict.known is not None for verdict in one.verdicts.values())
        self.complete += one.complete
        self.incomplete += one.bounds() is None
        for dimension in DIMENSIONS:
            verdict = one.verdicts[dimension]
            if verdict.truncated:
                self.truncated[dimension] = self.truncated.get(dimension, 0) + 1
            if verdict.known is None:
                self.unscored[dimension] += 1
                self.reasons.setdefault(dimension, verdict.reason or "no reason was recorded")
            elif one.complete and verdict.score is not None:
                self.sums[dimension] += verdict.score

    def require_scores(self, judge: str, *, usable: bool = False) -> None:
        """Raise NothingScored where no response has a score in any dimension, or with `usable` none for a pair.

        A run that was meant to score and did not must not look like one that did.
        """
        if not self.responses or (self.usable if usable else self.scored):
            return
        reasons = "\n".join(
            f"  {dimension}: {self.unscored[dimension]} unscored; the first: {self.reasons[dimension]}"
            for dimension in DIMENSIONS
            if self.unscored[dimension]
        )
        what = "a score in every dimension that pairs need" if usable and self.scored else "a score"
        raise NothingScored(
            f"none of {self.responses:,} responses got {what} from the judge {judge}:\n{reasons}\n"
            "Mend the judge (`longreward doctor` tries its prompts) and run it again: it asks again what was unreadable"
        )

    def means(self) -> dict[str, float]:
        """The mean of each dimension and of the reward over complete responses.

        Empty where there are none, or where others were left out: bests and worsts have no telling mean.
        """
        if not self.complete or self.savings.responses:
            return {}
        means: dict[str, float] = {name: total / self.complete for name, total in self.sums.items()}
        return means | {"reward": sum(means.values()) / len(means)}

    def figures(self) -> dict[str, float]:
        """Counts and means, flat, as metrics."""
        counts = {"prompts": self.prompts, "complete": self.complete, "incomplete": self.incomplete}
        unscored = {f"unscored/{dimension}": count for dimension, count in self.unscored.items()}
        truncated = {f"truncated/{dimension}": count for dimension, count in self.truncated.items()}
        figures = {name: float(value) for name, value in (counts | unscored | truncated).items()}
        return figures | self.means() | self.savings.figures()


class ScoredFilesWriter:
    """The three files, written as prompts come and there, whole, when the `with` block ends without an error."""

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
        self._files = [self._stack.enter_context(open_atomic(path)) for path in self._paths]
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def add(self, scored: ScoredExample) -> None:
        """One prompt's extracts and responses."""
        complete, unscored, chunk_info = self._files
        chunk_info.write(to_line(extraction_to_row(scored.extraction)))
        for one in scored.responses:
            row = scored_to_row(one, scored.extraction, self._settings)
            (complete if one.complete else unscored).write(to_line(row))
        self.report.count(scored)


def sibling_path(out: Path, what: str) -> Path:
    """`scored_responses.unscored.jsonl` for `scored_responses.jsonl`."""
    return out.with_name(f"{out.stem}.{what}.jsonl")


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
    """Scores every response of `responses` against its example in `data`; all files appear at the end, whole.

    Documents and responses are read when their turn comes. `progress(done, all)` counts prompts;
    embeddings are kept at `ledger` (None: in memory). Raises DataError for a record that cannot be used, ConfigError
    where `out` would replace an input, JudgeError where the judge or an embedding model fails: the answers so far are
    in the ledger then.
    """
    _keep_inputs(out, data, responses)
    items = read_scoring_items(data, responses)

    def tell(done: int) -> None:
        if progress:
            progress(done, len(items))

    async with Scorer(config, ledger=ledger) as scorer:
        files = ScoredFilesWriter(
            complete=out,
            unscored=sibling_path(out, "unscored"),
            chunk_info=sibling_path(out, "chunk_info"),
            settings=scorer.settings,
        )
        with files:
            async for scored in score_examples(judge, config, items, scorer=scorer, progress=tell):
                files.add(scored)
    return files.report


def _keep_inputs(out: Path, *inputs: Path) -> None:
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it")
    for path in (out, sibling_path(out, "unscored"), sibling_path(out, "chunk_info")):
        if path.resolve() in {one.resolve() for one in inputs}:
            raise ConfigError(f"--out {out} would replace an input, {path}; choose another name")


# What is to be scored: each example with its responses, read from their files when its turn comes.
#
#     items = read_items(Path("preference.jsonl"), Path("sampled_responses.jsonl"))
#     len(items), items[0]        # (10000, (Example(…), [Response(…), …]))
#
# Documents are long: 10,000 of 32,000 tokens are more than a gigabyte. Held are only the places of their lines.


ExampleWithResponses = tuple[Example, Sequence[Response]]


def read_scoring_items(data: Path, responses: Path) -> "ScoringItems":
    """The examples that have responses, in the order of `data`.

    Raises DataError where a record cannot be used, comes twice, or where the example of a response is not there or
    asks something else.
    """
    answers = IndexedJsonl(responses, response_from_row)
    groups: dict[str, array[int]] = {}
    queries: dict[str, str] = {}
    seen: set[str] = set()
    for place, response in answers.scan():
        if response.id in seen:
            raise DataError(f"{responses}: idx {response.id} comes twice")
        seen.add(response.id)
        groups.setdefault(response.example_id, array("q")).append(place)
        if queries.setdefault(response.example_id, response.query) != response.query:
            raise _stray(responses, response, data)
    examples = IndexedJsonl(data, example_from_row)
    found = array("q")
    grouped: list[array[int]] = []
    missing = set(groups)
    for place, example in examples.scan():
        group = groups.get(example.id)
        if group is None:
            continue
        if example.id not in missing:
            raise DataError(f"{data}: idx {example.id} comes twice; which of the two do its responses answer?")
        missing.remove(example.id)
        if queries.pop(example.id) != example.query:
            raise _stray(responses, answers[group[0]], data)
        found.append(place)
        grouped.append(group)
    if missing:
        raise DataError(
            f"{responses} has responses to {len(missing)} example(s) not in {data}, such as {min(missing)!r}"
        )
    return ScoringItems(examples, found, answers, grouped)


class ScoringItems(Sequence[ExampleWithResponses]):
    """A sequence that reads what it is asked for; a slice reads nothing yet."""

    def __init__(
        self,
        examples: IndexedJsonl[Example],
        places: "array[int]",
        responses: IndexedJsonl[Response],
        groups: "Sequence[array[int]]",
    ) -> None:
        self._examples = examples
        self._places = places
        self._responses = responses
        self._groups = groups

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> ExampleWithResponses: ...
    @overload
    def __getitem__(self, index: slice) -> "ScoringItems": ...
    def __getitem__(self, index: int | slice) -> "ExampleWithResponses | ScoringItems":
        if isinstance(index, slice):
            return ScoringItems(self._examples, self._places[index], self._responses, self._groups[index])
        group = self._groups[index]
        return self._examples[self._places[index]], [self._responses[place] for place in group]


def _stray(responses: Path, response: Response, data: Path) -> DataError:
    return DataError(f"{responses}: the query of {response.id} is not that of example {response.example_id} in {data}")
