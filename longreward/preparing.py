"""From raw records to three splits: every record is checked, duplicates leave, and no document is on two sides.

One pass over the file, one record in memory at a time; what is remembered of each is a few hashes.
"""

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from longreward.config import Config
from longreward.errors import ConfigError, DataError
from longreward.formats import document_id, example_of, example_row, response_of, response_row
from longreward.jsonl import Row, RowError, read_rows, reason_of, to_line, writing
from longreward.records import Example

Split = Literal["sft", "preference", "heldout"]
SPLITS: tuple[Split, ...] = ("sft", "preference", "heldout")
SHOWN_BAD = 10  # bad records that an error names; rejected.jsonl has all


class PrepareConfig(Config):
    """Where the raw records are and how they are divided."""

    source: str = "data/raw/builtin/corpus.jsonl"
    """A jsonl file under data/raw in the form of the published `sft.jsonl` or of a LongReward-10k split."""

    responses: str | None = None
    """Responses that were already sampled (`sampled_responses.jsonl`, under data/raw): `sample` then passes them on."""

    preference_share: float = Field(default=0.45, ge=0, le=1)
    """Share of the documents whose prompts are sampled, scored and paired."""

    heldout_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the documents that only `evaluate` sees. The rest trains `sft`."""

    max_preference: int | None = Field(default=None, ge=1)
    """Keep at most so many preference prompts (each costs judge calls); None: all."""

    max_heldout: int | None = Field(default=None, ge=1)
    """Keep at most so many held-out prompts; None: all."""

    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails where a larger share of the records is bad. Duplicates are not bad."""

    seed: int = 0
    """Decides which document falls on which side; a document stays on its side when others are added."""

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "PrepareConfig":
        if self.preference_share + self.heldout_share > 1:
            raise ValueError("preference_share and heldout_share add up to more than 1")
        return self


@dataclass(frozen=True)
class Rejected:
    """A raw record that was kept out."""

    file: str
    line: int
    idx: str | None
    reason: str


@dataclass
class PrepareReport:
    """What went where; lengths are tokens of the policy's tokenizer, of the whole prompt."""

    records: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    documents: dict[str, set[str]] = field(default_factory=dict)
    bad: int = 0
    first_bad: list[Rejected] = field(default_factory=list)
    duplicates: int = 0
    over_limit: int = 0
    prompt_tokens: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Counts and lengths, flat, as metrics."""
        figures: dict[str, float] = {
            "records": self.records,
            "bad": self.bad,
            "duplicates": self.duplicates,
            "over_limit": self.over_limit,
        }
        for split in SPLITS:
            figures[f"{split}/examples"] = self.splits[split]
            figures[f"{split}/documents"] = len(self.documents.get(split, ()))
        if self.prompt_tokens:
            figures |= {
                "prompt_tokens/min": min(self.prompt_tokens),
                "prompt_tokens/median": statistics.median(self.prompt_tokens),
                "prompt_tokens/max": max(self.prompt_tokens),
            }
        return {name: float(value) for name, value in figures.items()}


def prepare(
    config: PrepareConfig,
    count_prompt_tokens: Callable[[str, str], int],
    *,
    root: Path,
    out: Path,
    progress: Callable[[int], None] | None = None,
) -> PrepareReport:
    """Reads `config.source`; writes `sft.jsonl`, `preference.jsonl`, `heldout.jsonl` and `rejected.jsonl` into `out`.

    `count_prompt_tokens(context, query)` is the policy's. Raises ConfigError where the source lies outside data/raw (it
    would not be versioned), DataError where it cannot be read, too much of it is bad, or nothing is left of a split.
    """
    report = PrepareReport(documents={split: set() for split in SPLITS})
    source = _raw_path(root, config.source, "prepare.source")
    with ExitStack() as stack:
        files = {name: stack.enter_context(writing(out / f"{name}.jsonl")) for name in (*SPLITS, "rejected")}

        def reject(line: int, idx: str | None, reason: str) -> Rejected:
            rejected = Rejected(config.source, line, idx, reason)
            files["rejected"].write(to_line(asdict(rejected)))
            return rejected

        for line, outcome in _checked(source):
            report.records += 1
            if not isinstance(outcome, Example):
                rejected = reject(line, outcome.idx, outcome.reason)
                report.duplicates += outcome.duplicate
                report.bad += not outcome.duplicate
                if not outcome.duplicate and len(report.first_bad) < SHOWN_BAD:
                    report.first_bad.append(rejected)
                continue
            split = split_of(config, outcome.document_id)
            if _is_full(config, split, report.splits[split]):
                reject(
                    line, outcome.id, f"{split} has its {report.splits[split]} examples already (prepare.max_{split})"
                )
                report.over_limit += 1
                continue
            tokens = count_prompt_tokens(outcome.context, outcome.query)
            files[split].write(to_line(example_row(outcome, prompt_tokens=tokens)))
            report.splits[split] += 1
            report.documents[split].add(outcome.document_id)
            report.prompt_tokens.append(tokens)
            if progress:
                progress(report.records)
        _accept(config, report)
    return report


def prepare_responses(config: PrepareConfig, *, root: Path, out: Path) -> int:
    """Checks brought responses against the preference prompts, writes those that belong to one, returns their number.

    Raises DataError where a query differs from its example's, an id comes twice, or none belongs to a prompt.
    """
    if config.responses is None:
        raise ConfigError("prepare.responses is not set")
    path = _raw_path(root, config.responses, "prepare.responses")
    queries = {
        str(row["idx"]): str(row["query"]) for _, row in read_rows(out / "preference.jsonl") if isinstance(row, dict)
    }
    seen: set[str] = set()
    with writing(out / "responses.jsonl") as file:
        for line, row in read_rows(path):
            try:
                if isinstance(row, RowError):
                    raise row
                response = response_of(row)
                if response.id in seen:
                    raise RowError(f"idx {response.id} comes twice")
            except (RowError, ValidationError) as error:
                raise DataError(f"{path}, line {line}: {reason_of(error)}") from None
            query = queries.get(response.example_id)
            if query is None:
                continue
            if query != response.query:
                raise DataError(f"{path}, line {line}: the query of {response.id} is not that of its example")
            seen.add(response.id)
            file.write(to_line(response_row(response)))
        if not seen:
            raise DataError(
                f"{path}: no response belongs to one of the {len(queries)} preference prompts; do the idx agree?"
            )
    return len(seen)


def split_of(config: PrepareConfig, document: str) -> Split:
    """A document's side, from a hash of its name and the seed: the order and number of the others play no part."""
    digest = hashlib.sha256(f"{config.seed}\0{document}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < config.heldout_share:
        return "heldout"
    return "preference" if place < config.heldout_share + config.preference_share else "sft"


@dataclass(frozen=True)
class _Refused:
    idx: str | None
    reason: str
    duplicate: bool = False


def _checked(path: Path) -> Iterator[tuple[int, Example | _Refused]]:
    """Each record, or why it is refused: bad form, an idx that was used before, or the same query on the same text."""
    line_of_id: dict[str, int] = {}
    line_of_content: dict[bytes, int] = {}
    document_of_text: dict[str, str] = {}
    for line, row in read_rows(path):
        try:
            example = _example(row)
        except (RowError, ValidationError) as error:
            yield line, _Refused(_idx(row), reason_of(error))
            continue
        text = document_id(example.context)
        content = hashlib.sha256(f"{text}\0{' '.join(example.query.split())}".encode("utf-8", "surrogatepass")).digest()
        if (first := line_of_content.get(content)) is not None:
            yield line, _Refused(example.id, f"the same query on the same text as line {first}", duplicate=True)
        elif (first := line_of_id.get(example.id)) is not None:
            yield line, _Refused(example.id, f"idx {example.id} stands in line {first} already, with other content")
        else:
            line_of_id[example.id] = line_of_content[content] = line
            # One text under two document names must not end up on two sides: the first name holds for both.
            document = document_of_text.setdefault(text, example.document_id)
            yield line, example.model_copy(update={"document_id": document})


def _example(row: Row | RowError) -> Example:
    if isinstance(row, RowError):
        raise row
    example = example_of(row)
    if not example.context.strip():
        raise RowError("context is empty")
    if example.answer is not None and not example.answer.strip():
        raise RowError("answer is empty; leave it out where there is none")
    return example


def _idx(row: Row | RowError) -> str | None:
    return str(row["idx"]) if isinstance(row, dict) and "idx" in row else None


def _is_full(config: PrepareConfig, split: Split, count: int) -> bool:
    limit = {"preference": config.max_preference, "heldout": config.max_heldout, "sft": None}[split]
    return limit is not None and count >= limit


def _accept(config: PrepareConfig, report: PrepareReport) -> None:
    """Raises DataError where too much was bad or a split that should hold something is empty."""
    share = report.bad / report.records
    if share > config.max_bad_share:
        listed = "\n".join(f"  line {bad.line}: {bad.reason}" for bad in report.first_bad)
        raise DataError(
            f"{report.bad} of {report.records} records of {config.source} are bad ({share:.1%}; prepare.max_bad_share "
            f"allows {config.max_bad_share:.1%}). The first of them:\n{listed}"
        )
    expected = {
        "sft": config.preference_share + config.heldout_share < 1,
        "preference": config.preference_share > 0,
        "heldout": config.heldout_share > 0,
    }
    for split in SPLITS:
        if expected[split] and not report.splits[split]:
            raise DataError(
                f"no record of {config.source} fell to {split}: {report.records} records are too few for these shares; "
                "change prepare.preference_share, prepare.heldout_share or prepare.seed"
            )


def _raw_path(root: Path, name: str, key: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to((root / "data" / "raw").resolve()):
        raise ConfigError(f"{key} is {name!r}; put the file under data/raw, where DVC keeps its versions")
    return path
