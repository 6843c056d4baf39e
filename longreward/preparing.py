"""From raw records to three splits: every record is checked, duplicates leave, and no document is on two sides.

One pass over the source, one record in memory at a time; what is remembered of each is a few hashes, about 0.8 KB.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from longreward.config import Config
from longreward.errors import ConfigError, DataError
from longreward.formats import example_row, response_of, response_row
from longreward.jsonl import RowError, read_rows, reason_of, to_line, writing
from longreward.prepared import SHOWN, SPLITS, PrepareReport, Rejected, Split
from longreward.records import Example
from longreward.sources.checking import checked_examples
from longreward.sources.columns import ColumnsConfig, check_columns
from longreward.sources.hub import HubConfig
from longreward.sources.opening import open_source

PIN = r"^sha256:[0-9a-f]{64}$"


class PrepareConfig(Config):
    """Where the raw records are and how they are divided."""

    source: str = "data/raw/builtin/corpus.jsonl"
    """Under data/raw (or elsewhere, with its checksum): a .jsonl, .json or .parquet file, a folder or glob of such, or
    `hub:<owner>/<name>`, a data set of the Hugging Face hub (`hub:<folder>`: a downloaded one)."""

    checksum: str | None = Field(default=None, pattern=PIN)
    """What the source must be: `sha256:` and what `sha256sum` says of the file. Needed outside data/raw."""

    hub: HubConfig = HubConfig()
    """Which part of a hub data set."""

    columns: ColumnsConfig = ColumnsConfig()
    """Which column holds what."""

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

    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails where a larger share of the records is bad. Duplicates are not bad."""

    over_window: Literal["refuse", "keep_ends", "drop"] = "refuse"
    """A prompt longer than the policy's window: stop, leave it out, or pass it on whole to stages whose own `over_window`
    is keep_ends and which then keep its ends."""

    answer_room: int = Field(default=1, ge=1)
    """Tokens of the window that a prompt must leave free; `sample.max_new_tokens` here finds what `sample` would refuse."""

    seed: int = 0
    """Decides which document falls on which side; a document stays on its side when others are added."""

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "PrepareConfig":
        if self.preference_share + self.heldout_share > 1:
            raise ValueError("preference_share and heldout_share add up to more than 1")
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

    `count_prompt_tokens(context, query)` and `window` (tokens; None: not looked at) are the policy's. Raises ConfigError
    where nothing pins the source or it lacks a column, DataError where it cannot be read, is not what was pinned, too
    much of it is bad or nothing is left of a split, PolicyError where a prompt is longer than the window.
    """
    report = PrepareReport()
    source = open_source(
        root, config.source, key="prepare.source", pin_key="prepare.checksum", pin=config.checksum, hub=config.hub
    )
    check_columns(config.columns, source.columns(), source=config.source)
    room = None if window is None else window - config.answer_room
    with ExitStack() as stack:
        files = {name: stack.enter_context(writing(out / f"{name}.jsonl")) for name in (*SPLITS, "rejected")}
        for place, outcome in checked_examples(source, config.columns):
            report.records += 1
            kept = _placed(config, report, outcome, count_prompt_tokens, room) if isinstance(outcome, Example) else None
    return report
