"""What will be scored: the prepared prompts and sampled responses where they are there, else what they will be like.

prompts     data/prepared/<split>.jsonl, else the raw records through `prepare`'s own reader
responses   data/sampled/sampled_responses.jsonl, or those that came with the data, else stand-ins of likely length
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from longreward.chat_model import estimate_tokens
from longreward.data.formats import read_examples, read_responses
from longreward.data.prepare import PrepareConfig, assign_split, open_prompt_source
from longreward.data.prepare_report import Split
from longreward.data.validation import validate_examples
from longreward.planning.estimate import ScoringItem
from longreward.planning.reply_stats import ANSWER_SHARE, RESPONSE_SHARE, Range, stand_in
from longreward.records import Example, Response

Length = Literal["low", "expected", "high"]
LENGTHS: tuple[Length, ...] = ("low", "expected", "high")


@dataclass(frozen=True)
class Workload:
    """Prompts with their responses; `items(length)` gives them anew each time, one document in memory at a time."""

    items: Callable[[Length], Iterator[ScoringItem]]
    assumed: bool
    """Whether the responses are stand-ins, whose length is a guess."""
    told: str
    """Where it all comes from, for people."""


def workload_for_split(
    config: PrepareConfig, split: Split, *, root: Path, responses: Path | None, n: int, room: int
) -> Workload:
    """The prompts of a split, with the responses of that file; None or not there: `n` stand-ins of up to `room` tokens.

    Raises ConfigError or DataError where neither prepared nor raw data can be read.
    """
    prompts, source = _prompts(config, split, root)
    if responses is not None and responses.is_file():
        return _with_responses(prompts, responses, f"{source} with {responses}")
    return _with_stand_ins(
        prompts, n, lambda example: _likely(example, room), f"{source}; {n} responses each, {ASSUMED}"
    )


def sampled_lengths(path: Path) -> Range | None:
    """How long the responses of a file are, in tokens: quartiles around the mean; None where there is no such file."""
    if not path.is_file() or not path.stat().st_size:  # `sample` leaves an empty file where the pairs are given
        return None
    lengths = [estimate_tokens(each.text) for each in islice(read_responses(path), 2000)]
    if len(lengths) < 2:
        return None
    low, _, high = statistics.quantiles(lengths, n=4, method="inclusive")
    mean = statistics.fmean(lengths)
    return Range(min(low, mean), mean, max(high, mean))


def workload_of_length(config: PrepareConfig, split: Split, *, root: Path, n: int, tokens: Range) -> Workload:
    """The prompts of a split with `n` stand-ins of that length each."""
    prompts, source = _prompts(config, split, root)
    return _with_stand_ins(
        prompts, n, lambda _: tokens, f"{source}; {n} responses each, as long as those sampled so far"
    )


def workload_from_files(data: Path, responses: Path) -> Workload:
    """Files as `longreward score` takes them."""
    return _with_responses(lambda: read_examples(data), responses, f"{data} with {responses}")


def _prompts(config: PrepareConfig, split: Split, root: Path) -> tuple[Callable[[], Iterator[Example]], str]:
    prepared = root / "data/prepared" / f"{split}.jsonl"
    if prepared.is_file():
        return lambda: read_examples(prepared), str(prepared)
    return lambda: _raw(config, split, root), f"{config.source}, divided as `prepare` would"


def _raw(config: PrepareConfig, split: Split, root: Path) -> Iterator[Example]:
    source = open_prompt_source(config, root)
    most = {"preference": config.max_preference, "heldout": config.max_heldout}.get(split)
    records = (outcome for _, outcome in validate_examples(source, config.columns))
    examples = (record for record in records if isinstance(record, Example))
    kept = (example for example in examples if assign_split(config, example.document_id) == split)
    return islice(kept, most)


def _with_responses(prompts: Callable[[], Iterator[Example]], path: Path, told: str) -> Workload:
    groups: dict[str, list[Response]] = {}
    for response in read_responses(path):
        groups.setdefault(response.example_id, []).append(response)

    def items(length: Length) -> Iterator[ScoringItem]:
        return ((example, groups[example.id]) for example in prompts() if example.id in groups)

    return Workload(items, assumed=False, told=told)


def _with_stand_ins(
    prompts: Callable[[], Iterator[Example]], n: int, tokens: Callable[[Example], Range], told: str
) -> Workload:
    def items(length: Length) -> Iterator[ScoringItem]:
        return ((example, _stand_ins(example, n, getattr(tokens(example), length))) for example in prompts())

    return Workload(items, assumed=True, told=told)


def _stand_ins(example: Example, n: int, tokens: float) -> Sequence[Response]:
    return [
        Response(
            id=f"{example.id}-{number}",
            example_id=example.id,
            query=example.query,
            text=stand_in(number, tokens, example.query),
        )
        for number in range(n)
    ]


def _likely(example: Example, room: int) -> Range:
    """Tokens of a response: about as many as the data's own answer has, else some of those that it may have."""
    if example.answer is None:
        return RESPONSE_SHARE * float(room)
    likely = ANSWER_SHARE * float(estimate_tokens(example.answer))
    return Range(min(likely.low, room), min(likely.expected, room), min(likely.high, room))


ASSUMED = "assumed as long as the data's own answers, or else half of sample.max_new_tokens"
