"""Divide raw records into three splits: sft, preference and held-out. No document is in two of them.

    source --validation--> examples --hash of document and seed--> sft.jsonl, preference.jsonl, heldout.jsonl

The source is read once, one record at a time. About 640 bytes (a few hashes) per record stay in memory.
"""

import fnmatch
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from longreward.config import Config
from longreward.data.columns import ColumnsConfig, check_columns
from longreward.data.formats import example_to_row, pair_to_row, read_examples, response_from_row, response_to_row
from longreward.data.hub_source import HubConfig
from longreward.data.open_source import open_source
from longreward.data.preferences import PairsConfig
from longreward.data.prepare_report import SPLITS, PrepareReport, Split
from longreward.data.source import MAX_RECORD_MIB, RejectedRecord, Source
from longreward.data.validation import HeldOutIndex, validate_examples, validate_pairs
from longreward.errors import ConfigError, DataError, PolicyError
from longreward.utils.jsonl import Row, RowError, error_reason, open_atomic, read_rows, to_line

MAX_SEEDS_TRIED = 1000
BLANK_LINE = "\n"
"""The content of a file without records. DVC warns about a dependency of 0 bytes, and readers skip blank lines."""
CHECKSUM_PATTERN = r"^sha256:[0-9a-f]{64}$"


class PrepareConfig(Config):
    """Where the raw records are and how they are divided."""

    source: str = "data/raw/builtin/corpus.jsonl"
    """Raw records, below data/raw (or elsewhere, with a checksum): a .jsonl, .ndjson, .json, .csv or .parquet file, a
    folder or glob of such files, or `hub:<owner>/<name>`, a data set of the Hugging Face hub (`hub:<folder>`: a
    downloaded one)."""

    checksum: str | None = Field(default=None, pattern=CHECKSUM_PATTERN)
    """Expected checksum of the source: `sha256:` and the output of `sha256sum`. Required outside data/raw."""

    hub: HubConfig = HubConfig()
    """Which part of a hub data set."""

    columns: ColumnsConfig = ColumnsConfig()
    """Which column contains what."""

    pairs: PairsConfig = PairsConfig()
    """Preference pairs that are part of the data."""

    responses: str | None = None
    """Responses that were sampled elsewhere (`sampled_responses.jsonl`, below data/raw). `sample` then passes them
    on."""

    responses_checksum: str | None = Field(default=None, pattern=CHECKSUM_PATTERN)
    """Expected checksum of the file with responses. Required outside data/raw."""

    preference_share: float = Field(default=0.45, ge=0, le=1)
    """Share of the documents whose prompts are sampled, scored and paired."""

    heldout_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the documents that only `evaluate` uses. The rest trains `sft`."""

    heldout_documents: str | None = None
    """A pattern of document names (`heldout-*`) that only `evaluate` uses, for data with held-out documents of its own.
    heldout_share must then be 0: the other documents are divided between `sft` and the preference split."""

    max_preference: int | None = Field(default=None, ge=1)
    """Maximum number of preference prompts (each costs judge calls); null: all."""

    max_heldout: int | None = Field(default=None, ge=1)
    """Maximum number of held-out prompts; null: all."""

    max_record_mib: float = Field(default=MAX_RECORD_MIB, gt=0, le=1024)
    """Maximum size in MiB of a line (jsonl), record (csv) or text file. A larger one is rejected without being held in
    memory. A record takes three times its size there, up to twelve times with emoji."""

    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails if a larger share of the records is bad. Duplicates are not bad."""

    over_window: Literal["refuse", "keep_ends", "drop"] = "refuse"
    """A prompt that exceeds the policy's window: stop (refuse), leave it out (drop), or pass it on unchanged to the
    stages, whose own `over_window` must then be keep_ends."""

    answer_room: int = Field(default=1, ge=1)
    """Tokens of the window that a prompt must leave free. Set it to `sample.max_new_tokens` to find here what `sample`
    would reject."""

    seed: int = 0
    """Decides the split of each document. A document keeps its split when others are added."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "PrepareConfig":
        if self.preference_share + self.heldout_share > 1:
            raise ValueError("preference_share and heldout_share add up to more than 1")
        if self.heldout_documents is not None and self.heldout_share > 0:
            raise ValueError(
                f"heldout_documents is {self.heldout_documents!r} and heldout_share {self.heldout_share:g}: set "
                "heldout_share to 0, or remove heldout_documents"
            )
        if self.pairs.source is not None and self.responses is not None:
            raise ValueError(
                "responses and pairs.source are both set, and given pairs need no responses: remove one of them"
            )
        return self

    @property
    def expected_splits(self) -> set[Split]:
        """The splits that get documents."""
        expected: dict[Split, bool] = {
            "sft": self.preference_share + self.heldout_share < 1,
            "preference": self.preference_share > 0,
            "heldout": self.heldout_share > 0 or self.heldout_documents is not None,
        }
        return {split for split in SPLITS if expected[split]}


def prepare(
    config: PrepareConfig,
    count_prompt_tokens: Callable[[str, str], int],
    *,
    root: Path,
    out: Path,
    window: int | None = None,
    progress: Callable[[int], None] = lambda records: None,
) -> PrepareReport:
    """Read `config.source` and write `sft.jsonl`, `preference.jsonl`, `heldout.jsonl` and `rejected.jsonl` to `out`.

    Args:
        count_prompt_tokens: Returns the length of the policy's prompt for a context and a query.
        window: The policy's window in tokens; None: prompt lengths are not checked.
        progress: Receives the number of records read so far.

    Raises ConfigError if nothing pins the source or a column is missing; DataError if the source cannot be read,
    differs from its checksum, has too many bad records or leaves a split empty; PolicyError if a prompt exceeds the
    window.
    """
    source = open_prompt_source(config, root)
    report = PrepareReport()
    with ExitStack() as stack:
        # The files appear together at the end; an error in one of the checks below leaves none of them.
        files = {name: stack.enter_context(open_atomic(out / f"{name}.jsonl")) for name in (*SPLITS, "rejected")}
        for name, row in _assign_rows(config, report, source, count_prompt_tokens, window):
            files[name].write(to_line(row))
            if name != "rejected":
                progress(report.records)
        report.check_bad_share(source=config.source, allowed=config.max_bad_share)
        if window is not None and config.over_window == "refuse":
            report.check_prompt_lengths(source=config.source, limit=window - config.answer_room, window=window)
        _check_splits(config, report)
        for split in SPLITS:
            if not report.splits[split]:
                files[split].write(BLANK_LINE)
    return report


def prepare_responses(config: PrepareConfig, *, root: Path, out: Path) -> int:
    """Write the responses of `config.responses` that belong to preference prompts; return their number.

    Raises DataError if a query differs from its example's, an id is repeated, or no response belongs to a prompt.
    """
    if config.responses is None:
        raise ConfigError("prepare.responses is not set")
    source = open_source(
        root,
        config.responses,
        key="prepare.responses",
        pin_key="prepare.responses_checksum",
        pin=config.responses_checksum,
        max_record_mib=config.max_record_mib,
    )
    queries = {
        str(row["idx"]): str(row["query"]) for _, row in read_rows(out / "preference.jsonl") if isinstance(row, dict)
    }
    ids: set[str] = set()
    with open_atomic(out / "responses.jsonl") as file:
        for location, row in source.rows():
            try:
                if isinstance(row, RowError):
                    raise row
                response = response_from_row(row)
                if response.id in ids:
                    raise RowError(f"idx {response.id} is repeated")
                # Responses to prompts of other splits are expected, since whole sets are sampled.
                query = queries.get(response.example_id)
                if query is None:
                    continue
                if query != response.query:
                    raise RowError(f"the query of {response.id} differs from its example's")
            except (RowError, ValidationError) as error:
                raise DataError(f"{location}: {error_reason(error)}") from None
            ids.add(response.id)
            file.write(to_line(response_to_row(response)))
        if not ids:
            raise DataError(
                f"{config.responses}: no response belongs to one of the {len(queries)} preference prompts; "
                "do the idx agree?"
            )
    return len(ids)


def prepare_pairs(config: PrepareConfig, *, root: Path, out: Path) -> dict[str, float]:
    """Write the pairs of `config.pairs` to `pairs.jsonl` and the rest to `rejected_pairs.jsonl`; return metrics.

    Without a source, `pairs.jsonl` has no records; it is written because `pair` depends on it. Pairs about documents or
    prompts of the held-out split, which must exist in `out`, are left out. Raises ConfigError if nothing pins the
    source; DataError if it cannot be read, has too many bad records or no usable pair.
    """
    pairs = config.pairs
    if pairs.source is None:
        with open_atomic(out / "pairs.jsonl") as file:
            file.write(BLANK_LINE)
        return {}
    held_out = HeldOutIndex()
    # Without a record if heldout_share is 0; read_examples would reject the file.
    if (out / "heldout.jsonl").stat().st_size > len(BLANK_LINE):
        for example in read_examples(out / "heldout.jsonl"):
            held_out.add(example.context, example.query)
    source = open_source(
        root,
        pairs.source,
        key="prepare.pairs.source",
        pin_key="prepare.pairs.checksum",
        pin=pairs.checksum,
        hub=pairs.hub,
        max_record_mib=config.max_record_mib,
    )
    report, kept = PrepareReport(), 0
    with open_atomic(out / "pairs.jsonl") as pairs_file, open_atomic(out / "rejected_pairs.jsonl") as rejected_file:
        for _, outcome in validate_pairs(source, pairs, held_out):
            report.records += 1
            if isinstance(outcome, RejectedRecord):
                report.count_rejected(outcome)
                rejected_file.write(to_line(outcome.to_row()))
            else:
                kept += 1
                pairs_file.write(to_line(pair_to_row(outcome)))
        report.check_bad_share(source=pairs.source, allowed=config.max_bad_share)
        if not kept:
            raise DataError(f"{pairs.source}: all {report.records} pairs are duplicates or held out for `evaluate`")
    return {
        "pairs": float(kept),
        "pairs/records": float(report.records),
        "pairs/bad": float(report.rejected["bad"]),
        "pairs/duplicates": float(report.rejected["duplicate"]),
        "pairs/held_out": float(report.rejected["held_out"]),
    }


def open_prompt_source(config: PrepareConfig, root: Path) -> Source:
    """Open `config.source` and check its pin and column names."""
    source = open_source(
        root,
        config.source,
        key="prepare.source",
        pin_key="prepare.checksum",
        pin=config.checksum,
        hub=config.hub,
        max_record_mib=config.max_record_mib,
    )
    check_columns(config.columns, source.columns(), source=config.source)
    return source


def assign_split(config: PrepareConfig, document: str) -> Split:
    """Return the split of a document from a hash of its name and the seed, independent of all other documents.

    Documents whose names match `prepare.heldout_documents` are held out.
    """
    if config.heldout_documents is not None and fnmatch.fnmatchcase(document, config.heldout_documents):
        return "heldout"
    digest = hashlib.sha256(f"{config.seed}\0{document}".encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8]) / 2**64  # uniform in [0, 1)
    if position < config.heldout_share:
        return "heldout"
    return "preference" if position < config.heldout_share + config.preference_share else "sft"


def _assign_rows(
    config: PrepareConfig,
    report: PrepareReport,
    source: Source,
    count_prompt_tokens: Callable[[str, str], int],
    window: int | None,
) -> Iterator[tuple[str, Row]]:
    """Yield for each record the name of its output file and its row; counts into `report`."""
    limits = {"preference": config.max_preference, "heldout": config.max_heldout}
    for location, outcome in validate_examples(source, config.columns):
        report.records += 1
        if isinstance(outcome, RejectedRecord):
            report.count_rejected(outcome)
            yield "rejected", outcome.to_row()
            continue
        split = assign_split(config, outcome.document_id)
        # Checked before tokens are counted, which takes most of the time.
        limit = limits.get(split)
        if limit is not None and report.splits[split] >= limit:
            reason = f"{split} has its {report.splits[split]} examples already (prepare.max_{split})"
            rejected = RejectedRecord(location, outcome.id, reason, "over_limit")
            report.count_rejected(rejected)
            yield "rejected", rejected.to_row()
            continue
        try:
            tokens = count_prompt_tokens(outcome.context, outcome.query)
        except PolicyError as error:
            raise PolicyError(f"{location}: {error}") from None
        if window is not None and tokens > window - config.answer_room:
            reason = f"the prompt has {tokens:,} tokens, and the policy's window {window:,}"
            rejected = RejectedRecord(location, outcome.id, reason, "over_window")
            report.count_rejected(rejected)
            if config.over_window == "drop":
                yield "rejected", rejected.to_row()
                continue
        report.count_kept(split, outcome.document_id, tokens)
        yield split, example_to_row(outcome, prompt_tokens=tokens)


def _check_splits(config: PrepareConfig, report: PrepareReport) -> None:
    """Raise DataError if an expected split is empty; with a handful of documents most seeds leave one empty."""
    empty = [split for split in SPLITS if split in config.expected_splits and not report.splits[split]]
    if not empty:
        return
    if empty[0] == "heldout" and config.heldout_documents is not None:
        raise DataError(
            f"no document of {config.source} has a name that matches prepare.heldout_documents "
            f"({config.heldout_documents!r})"
        )
    documents = set().union(*report.documents.values())
    remedy = "add documents"
    for seed in range(MAX_SEEDS_TRIED):
        candidate = config.model_copy(update={"seed": seed})
        if config.expected_splits <= {assign_split(candidate, document) for document in documents}:
            remedy = f"set prepare.seed to {seed}, which fills every split"
            break
    raise DataError(
        f"no record of {config.source} is in the split {empty[0]}: whole documents are divided, and {len(documents)} "
        f"are few for these shares; {remedy}, or change prepare.preference_share and prepare.heldout_share"
    )
