"""The prompts and responses that will be scored, or placeholders of assumed length if they do not exist yet.

prompts     data/prepared/<split>.jsonl, else the raw records, read and split as `prepare` does
responses   data/sampled/sampled_responses.jsonl, or those that came with the data, else placeholders
"""

from collections.abc import Callable, Iterator, Mapping
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
from longreward.planning.reply_stats import Range
from longreward.records import Example, Response
from longreward.utils.language import Language, detect_language

Length = Literal["low", "expected", "high"]
LENGTHS: tuple[Length, ...] = ("low", "expected", "high")

SHARE_OF_TOKEN_LIMIT = Range(0.1, 0.5, 1.0)  # assumed length of a response, of sample.max_new_tokens
SHARE_OF_ANSWER = Range(0.5, 1.0, 2.0)  # assumed length of a response, of the reference answer
ASSUMPTION = "assumed as long as the reference answers, else half of sample.max_new_tokens"
MEASURED_RESPONSES = 2000
# About 22 tokens each.
PLACEHOLDER_SENTENCES: Mapping[Language, str] = {
    "en": "The document says in its second part that the bridge over the river was opened to the public then. ",
    "zh": "文件的第二部分指出，这座桥当时向公众开放了。",
}
PLACEHOLDER_TOKENS = 22


@dataclass(frozen=True)
class Workload:
    """The prompts and responses that will be scored."""

    items: Callable[[Length], Iterator[ScoringItem]]
    """Iterates over them from the beginning, with one document in memory at a time."""
    is_assumed: bool
    """Whether the responses are placeholders of assumed length."""
    source: str
    """The origin of prompts and responses, for people."""


def workload_for_split(
    config: PrepareConfig,
    split: Split,
    *,
    root: Path,
    responses: Path | None,
    n: int,
    max_new_tokens: int,
    tokens: Range | None = None,
) -> Workload:
    """Return the prompts of a split with the responses in a file, or with placeholders if there is none.

    Args:
        config: the section `prepare`.
        split: the split of the data.
        root: the project folder.
        responses: a file that may be missing.
        n: number of placeholders per prompt.
        max_new_tokens: longest placeholder.
        tokens: length of the placeholders; None: that of the reference answers.

    Raises:
        ConfigError, DataError: neither the prepared nor the raw data can be read.
    """
    prepared = root / "data/prepared" / f"{split}.jsonl"
    source = str(prepared) if prepared.is_file() else f"{config.source}, split as `prepare` would"

    def prompts() -> Iterator[Example]:
        if prepared.is_file():
            return read_examples(prepared)
        # Before `prepare` has run, the raw data are read and split in the same way.
        records = (outcome for _, outcome in validate_examples(open_prompt_source(config, root), config.columns))
        examples = (record for record in records if isinstance(record, Example))
        limit = {"preference": config.max_preference, "heldout": config.max_heldout}.get(split)
        return islice((example for example in examples if assign_split(config, example.document_id) == split), limit)

    if responses is not None and responses.is_file():
        return _with_responses(prompts, responses, f"{source} with {responses}")

    def assumed_tokens(example: Example) -> Range:
        if tokens is not None:
            return tokens
        if example.answer is None:
            return SHARE_OF_TOKEN_LIMIT * float(max_new_tokens)
        answer_tokens = SHARE_OF_ANSWER * float(estimate_tokens(example.answer))
        return Range.combine(lambda value: min(value, max_new_tokens), answer_tokens)

    def items(length: Length) -> Iterator[ScoringItem]:
        for example in prompts():
            size = getattr(assumed_tokens(example), length)
            texts = [placeholder_text(number, size, example.query) for number in range(n)]
            placeholders = [
                Response(id=f"{example.id}-{number}", example_id=example.id, query=example.query, text=text)
                for number, text in enumerate(texts)
            ]
            yield example, placeholders

    length_source = ASSUMPTION if tokens is None else "as long as those sampled so far"
    return Workload(items, is_assumed=True, source=f"{source}; {n} responses each, {length_source}")


def workload_from_files(data: Path, responses: Path) -> Workload:
    """Return the prompts and responses of the files of one `longreward score`."""
    return _with_responses(lambda: read_examples(data), responses, f"{data} with {responses}")


def sampled_lengths(path: Path) -> Range | None:
    """Return the length of the responses in a file, in tokens; None if there are too few."""
    if not path.is_file() or not path.stat().st_size:  # `sample` writes an empty file if the pairs are given
        return None
    lengths = [estimate_tokens(response.text) for response in islice(read_responses(path), MEASURED_RESPONSES)]
    return Range.around_mean(lengths) if len(lengths) >= 2 else None


def placeholder_text(number: int, tokens: float, query: str) -> str:
    """Return a text of about `tokens` tokens in the language of the query; each number gives another text."""
    sentences = max(round(tokens / PLACEHOLDER_TOKENS), 1)
    return f"{number}: " + PLACEHOLDER_SENTENCES[detect_language(query)] * sentences


def _with_responses(prompts: Callable[[], Iterator[Example]], path: Path, source: str) -> Workload:
    responses_by_prompt: dict[str, list[Response]] = {}
    for response in read_responses(path):
        responses_by_prompt.setdefault(response.example_id, []).append(response)

    def items(length: Length) -> Iterator[ScoringItem]:
        return (
            (example, responses_by_prompt[example.id]) for example in prompts() if example.id in responses_by_prompt
        )

    return Workload(items, is_assumed=False, source=source)
