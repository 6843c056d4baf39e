"""The prompts and responses that will be scored, or placeholders of assumed length if they do not exist yet.

prompts     data/prepared/<split>.jsonl, else the raw records, read and split as `prepare` does
responses   data/sampled/sampled_responses.jsonl, or those that came with the data, else placeholders

Files that were made with other settings count as missing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

from longreward.chat_model import estimate_tokens
from longreward.data.formats import read_examples, read_responses
from longreward.data.prepare import PrepareConfig, assign_split, open_prompt_source
from longreward.data.prepare_report import Split
from longreward.data.validation import validate_examples
from longreward.planning.estimate import ScoringItem
from longreward.records import Example, Response
from longreward.utils.language import Language, detect_language

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

    items: Callable[[], Iterator[ScoringItem]]
    """Iterates over them from the beginning, with one document in memory at a time."""
    source: str
    """The origin of prompts and responses, for people."""


def workload_for_split(
    config: PrepareConfig,
    split: Split,
    *,
    root: Path,
    prepared: Path | None,
    responses: Path | None,
    n: int,
    tokens: int,
) -> Workload:
    """Return the prompts of a split with the responses in a file, or with placeholders if there is none.

    Args:
        config: the section `prepare`.
        split: the split of the data.
        root: the project folder.
        prepared: the outputs of `prepare`; None, or without this split: the raw records are read.
        responses: a file that may be missing.
        n: number of placeholders per prompt.
        tokens: length of each placeholder.

    Raises:
        ConfigError, DataError: neither the prepared nor the raw data can be read.
    """
    file = prepared / f"{split}.jsonl" if prepared is not None else None
    if file is not None and not file.is_file():
        file = None
    source = f"{config.source}, split as `prepare` would" if file is None else str(file)

    def prompts() -> Iterator[Example]:
        if file is not None:
            return read_examples(file) if file.stat().st_size else iter(())
        # Before `prepare` has run, the raw data are read and split in the same way.
        records = (outcome for _, outcome in validate_examples(open_prompt_source(config, root), config.columns))
        examples = (record for record in records if isinstance(record, Example))
        limit = {"preference": config.max_preference, "heldout": config.max_heldout}.get(split)
        return islice((example for example in examples if assign_split(config, example.document_id) == split), limit)

    if responses is not None and responses.is_file():
        return _with_responses(prompts, responses, f"{source} with {responses}")

    def items() -> Iterator[ScoringItem]:
        for example in prompts():
            texts = [placeholder_text(number, tokens, example.query) for number in range(n)]
            placeholders = [
                Response(id=f"{example.id}-{number}", example_id=example.id, query=example.query, text=text)
                for number, text in enumerate(texts)
            ]
            yield example, placeholders

    return Workload(items, f"{source}; {n} responses each, assumed to have {tokens:,} tokens")


def workload_from_files(data: Path, responses: Path) -> Workload:
    """Return the prompts and responses of the files of one `longreward score`."""
    return _with_responses(lambda: read_examples(data), responses, f"{data} with {responses}")


def mean_length(path: Path) -> int | None:
    """Return the mean length of the responses in a file, in tokens; None if there are none."""
    if not path.is_file() or not path.stat().st_size:  # `sample` writes an empty file if the pairs are given
        return None
    lengths = [estimate_tokens(response.text) for response in islice(read_responses(path), MEASURED_RESPONSES)]
    return round(fmean(lengths)) if lengths else None


def placeholder_text(number: int, tokens: int, query: str) -> str:
    """Return a text of about `tokens` tokens in the language of the query; each number gives another text."""
    sentences = max(round(tokens / PLACEHOLDER_TOKENS), 1)
    return f"{number}: " + PLACEHOLDER_SENTENCES[detect_language(query)] * sentences


def _with_responses(prompts: Callable[[], Iterator[Example]], path: Path, source: str) -> Workload:
    responses_by_prompt: dict[str, list[Response]] = {}
    for response in read_responses(path):
        responses_by_prompt.setdefault(response.example_id, []).append(response)

    def items() -> Iterator[ScoringItem]:
        return (
            (example, responses_by_prompt[example.id]) for example in prompts() if example.id in responses_by_prompt
        )

    return Workload(items, source)
