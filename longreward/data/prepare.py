"""From raw records to three splits: every record is checked, duplicates leave, and no document is on two sides.

One pass over the source, one record in memory at a time; what is remembered of each is a few hashes, 640 bytes.
"""

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
from longreward.data.preferences import HeldOutIndex, PairsConfig, validate_pairs
from longreward.data.prepare_report import SPLITS, PrepareReport, Rejected, Split
from longreward.data.source import MAX_RECORD_MIB, Source
from longreward.data.validation import Refused, validate_examples
from longreward.errors import ConfigError, DataError, PolicyError
from longreward.records import PreferencePair
from longreward.utils.jsonl import Row, RowError, error_reason, open_atomic, read_rows, to_line, write_rows

SEEDS_TRIED = 1000
PIN = r"^sha256:[0-9a-f]{64}$"


class PrepareConfig(Config):
    """Where the raw records are and how they are divided."""

    source: str = "data/raw/builtin/corpus.jsonl"
    """Under data/raw (or elsewhere, with its checksum): a .jsonl, .ndjson, .json, .csv or .parquet file, a folder or
    glob of such, or `hub:<owner>/<name>`, a data set of the Hugging Face hub (`hub:<folder>`: a downloaded one)."""

    checksum: str | None = Field(default=None, pattern=PIN)
    """What the source must be: `sha256:` and what `sha256sum` says of the file. Needed outside data/raw."""

    hub: HubConfig = HubConfig()
    """Which part of a hub data set."""

    columns: ColumnsConfig = ColumnsConfig()
    """Which column holds what."""

    pairs: PairsConfig = PairsConfig()
    """Preference pairs that came with the data."""

    responses: str | None = None
    """Responses that were already sampled (`sampled_responses.jsonl`, under data/raw): `sample` then passes them on."""

    responses_checksum: str | None = Field(default=None, pattern=PIN)
    """What the responses' file must be; needed outside data/raw."""

    preference_share: float = Field(default=0.45, ge=0, le=1)
    """Share of the documents whose prompts are sampled, scored and paired."""

    heldout_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the documents that only `evaluate` sees. The rest trains `sft`."""

    max_preference: int | None = Field(default=None, ge=1)
    """Keep at most so many preference prompts (each costs judge calls); None: all."""

    max_heldout: int | None = Field(default=None, ge=1)
    """Keep at most so many held-out prompts; None: all."""

    max_record_mib: float = Field(default=MAX_RECORD_MIB, gt=0, le=1024)
    """A line of jsonl, a record of csv or a text file of a record that is larger (in MiB) is rejected without being
    held in memory; a record takes three times its size there, up to twelve with emoji in it."""

    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails where a larger share of the records is bad. Duplicates are not bad."""

    over_window: Literal["refuse", "keep_ends", "drop"] = "refuse"
    """A prompt longer than the policy's window: stop, leave it out (drop), or pass it on whole to the stages, whose own
    `over_window` must then be keep_ends."""

    answer_room: int = Field(default=1, ge=1)
    """Tokens of the window that a prompt must leave free. With the value of `sample.max_new_tokens`, what `sample`
    would refuse is found here."""

    seed: int = 0
    """Decides which document falls on which side; a document stays on its side when others are added."""

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "PrepareConfig":
        if self.preference_share + self.heldout_share > 1:
            raise ValueError("preference_share and heldout_share add up to more than 1")
        if self.pairs.source is not None and self.responses is not None:
            raise ValueError(
                "responses and pairs.source are both set, and given pairs need no responses: leave one of them out"
            )
        return self


def prepare(
    config: PrepareConfig,
    count_prompt_tokens: Callable[[str, str], int],
    *,
    root: Path,
    out: Path,
    window: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> PrepareReport:
    """Reads `config.source`; writes `sft.jsonl`, `preference.jsonl`, `heldout.jsonl` and `rejected.jsonl` into `out`.

    `count_prompt_tokens(context, query)` and `window` (tokens; None: not looked at) are the policy's. Raises
    ConfigError where nothing pins the source or it lacks a column, DataError where it cannot be read, is not what was
    pinned, too much of it is bad or nothing is left of a split, PolicyError where a prompt is longer than the window.
    """
    source = open_prompt_source(config, root)
    report = PrepareReport()
    with ExitStack() as stack:
        files = {name: stack.enter_context(open_atomic(out / f"{name}.jsonl")) for name in (*SPLITS, "rejected")}
        for name, row in _rows(config, report, source, count_prompt_tokens, window):
            files[name].write(to_line(row))
            if progress and name != "rejected":
                progress(report.records)
        report.refuse_bad(source=config.source, allowed=config.max_bad_share)
        if window is not None and config.over_window == "refuse":
            report.refuse_over_window(source=config.source, room=window - config.answer_room, window=window)
        expected = _expected(config)
        report.refuse_empty(source=config.source, expected=expected, other_seed=lambda: _filling_seed(config, report))
    return report


def open_prompt_source(config: PrepareConfig, root: Path) -> Source:
    """The raw records of `config.source`, held against their pin and the names of their columns."""
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


def _rows(
    config: PrepareConfig,
    report: PrepareReport,
    source: Source,
    count_prompt_tokens: Callable[[str, str], int],
    window: int | None,
) -> Iterator[tuple[str, Row]]:
    """For each record of the source one row, and the file that it belongs to; counts into `report`."""
    for place, outcome in validate_examples(source, config.columns):
        report.records += 1
        if isinstance(outcome, Refused):
            rejected = Rejected(place, outcome.idx, outcome.reason)
            report.count_refused(rejected, duplicate=outcome.duplicate)
            yield "rejected", rejected.row()
            continue
        split = assign_split(config, outcome.document_id)
        if _is_full(config, split, report.splits[split]):
            reason = f"{split} has its {report.splits[split]} examples already (prepare.max_{split})"
            report.over_limit += 1
            yield "rejected", Rejected(place, outcome.id, reason).row()
            continue
        try:
            tokens = count_prompt_tokens(outcome.context, outcome.query)
        except PolicyError as error:
            raise PolicyError(f"{place}: {error}") from None
        if window is not None and tokens > window - config.answer_room:
            reason = f"the prompt has {tokens:,} tokens, and the policy's window {window:,}"
            rejected = Rejected(place, outcome.id, reason)
            report.count_over_window(rejected)
            if config.over_window == "drop":
                yield "rejected", rejected.row()
                continue
        report.count_kept(split, outcome.document_id, tokens)
        yield split, example_to_row(outcome, prompt_tokens=tokens)


def prepare_responses(config: PrepareConfig, *, root: Path, out: Path) -> int:
    """Checks brought responses against the preference prompts, writes those that belong to one, returns their number.

    Raises DataError where a query differs from its example's, an id comes twice, or none belongs to a prompt.
    """
    if config.responses is None:
        raise ConfigError("prepare.responses is not set")
    pin = config.responses_checksum
    source = open_source(
        root,
        config.responses,
        key="prepare.responses",
        pin_key="prepare.responses_checksum",
        pin=pin,
        max_record_mib=config.max_record_mib,
    )
    queries = {
        str(row["idx"]): str(row["query"]) for _, row in read_rows(out / "preference.jsonl") if isinstance(row, dict)
    }
    seen: set[str] = set()
    with open_atomic(out / "responses.jsonl") as file:
        for place, row in source.rows():
            try:
                if isinstance(row, RowError):
                    raise row
                response = response_from_row(row)
                if response.id in seen:
                    raise RowError(f"idx {response.id} comes twice")
            except (RowError, ValidationError) as error:
                raise DataError(f"{place}: {error_reason(error)}") from None
            query = queries.get(response.example_id)
            if query is None:
                continue
            if query != response.query:
                raise DataError(f"{place}: the query of {response.id} is not that of its example")
            seen.add(response.id)
            file.write(to_line(response_to_row(response)))
        if not seen:
            raise DataError(
                f"{config.responses}: no response belongs to one of the {len(queries)} preference prompts; "
                "do the idx agree?"
            )
    return len(seen)


def prepare_pairs(config: PrepareConfig, *, root: Path, out: Path) -> dict[str, float]:
    """Writes the pairs of `config.pairs` to `pairs.jsonl`, and `rejected_pairs.jsonl`; returns counts, as metrics.

    Without a source, `pairs.jsonl` is empty: `pair` depends on it. Pairs about documents or prompts of the held-out
    split, which must be written already, are left out. Raises ConfigError where nothing pins the source, DataError
    where it cannot be read, more than `max_bad_share` of it is bad or nothing is left.
    """
    given = config.pairs
    if given.source is None:
        write_rows(out / "pairs.jsonl", ())
        return {}
    held_out = HeldOutIndex()
    if (out / "heldout.jsonl").stat().st_size:
        for example in read_examples(out / "heldout.jsonl"):
            held_out.add(example.context, example.query)
    report, kept, left_out = PrepareReport(), 0, 0
    key = "prepare.pairs"
    try:
        source = open_source(
            root,
            given.source,
            key=f"{key}.source",
            pin_key=f"{key}.checksum",
            pin=given.checksum,
            hub=given.hub,
            max_record_mib=config.max_record_mib,
        )
        with open_atomic(out / "pairs.jsonl") as pairs, open_atomic(out / "rejected_pairs.jsonl") as rejected:
            for place, outcome in validate_pairs(source, given, held_out):
                report.records += 1
                if isinstance(outcome, PreferencePair):
                    kept += 1
                    pairs.write(to_line(pair_to_row(outcome)))
                    continue
                refused = Rejected(place, outcome.idx, outcome.reason)
                rejected.write(to_line(refused.row()))
                if outcome.held_out:
                    left_out += 1
                else:
                    report.count_refused(refused, duplicate=outcome.duplicate)
            report.refuse_bad(source=given.source, allowed=config.max_bad_share)
            if not kept:
                raise DataError(f"{given.source}: all {report.records} pairs are duplicates or held out for `evaluate`")
    except (ConfigError, DataError) as error:  # the reader of the hub knows of one section alone
        raise type(error)(str(error).replace("prepare.hub", f"{key}.hub")) from None
    counts = {"": kept, "/records": report.records, "/bad": report.bad, "/duplicates": report.duplicates}
    return {f"pairs{name}": float(count) for name, count in {**counts, "/held_out": left_out}.items()}


def assign_split(config: PrepareConfig, document: str) -> Split:
    """A document's side, from a hash of its name and the seed: the order and number of the others play no part."""
    digest = hashlib.sha256(f"{config.seed}\0{document}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < config.heldout_share:
        return "heldout"
    return "preference" if place < config.heldout_share + config.preference_share else "sft"


def _filling_seed(config: PrepareConfig, report: PrepareReport) -> int | None:
    """The first seed that gives every part a document: of a handful, by far not each one does."""
    documents = set().union(*report.documents.values())
    wanted = {split for split, expected in _expected(config).items() if expected}
    for seed in range(SEEDS_TRIED):
        other = config.model_copy(update={"seed": seed})
        if wanted <= {assign_split(other, document) for document in documents}:
            return seed
    return None


def _is_full(config: PrepareConfig, split: Split, count: int) -> bool:
    limit = {"preference": config.max_preference, "heldout": config.max_heldout, "sft": None}[split]
    return limit is not None and count >= limit


def _expected(config: PrepareConfig) -> dict[Split, bool]:
    return {
        "sft": config.preference_share + config.heldout_share < 1,
        "preference": config.preference_share > 0,
        "heldout": config.heldout_share > 0,
    }
