"""What `prepare` found: how much of it went where, what was kept out, and whether that will do."""

import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from longreward.data.source import SourceLocation
from longreward.errors import DataError, PolicyError
from longreward.utils.jsonl import Row

Split = Literal["sft", "preference", "heldout"]
SPLITS: tuple[Split, ...] = ("sft", "preference", "heldout")
SHOWN = 10  # records that an error names; rejected.jsonl has all


@dataclass(frozen=True)
class Rejected:
    """A raw record that was kept out."""

    place: SourceLocation
    idx: str | None
    reason: str

    def row(self) -> Row:
        """A line of rejected.jsonl: `line` counts from 1, `row` (json, parquet, hub) from 0."""
        return {"file": self.place.file, self.place.unit: self.place.number, "idx": self.idx, "reason": self.reason}


@dataclass
class PrepareReport:
    """What went where; lengths are tokens of the policy's tokenizer, of the whole prompt."""

    records: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    documents: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    bad: int = 0
    first_bad: list[Rejected] = field(default_factory=list)
    duplicates: int = 0
    over_limit: int = 0
    over_window: int = 0
    first_over_window: list[Rejected] = field(default_factory=list)
    prompt_tokens: "array[int]" = field(default_factory=lambda: array("q"))

    def count_refused(self, rejected: Rejected, *, duplicate: bool) -> None:
        """A record that is bad, or that came before."""
        self.duplicates += duplicate
        self.bad += not duplicate
        if not duplicate and len(self.first_bad) < SHOWN:
            self.first_bad.append(rejected)

    def count_over_window(self, rejected: Rejected) -> None:
        """A prompt that is too long, whether or not it is kept."""
        self.over_window += 1
        if len(self.first_over_window) < SHOWN:
            self.first_over_window.append(rejected)

    def count_kept(self, split: Split, document: str, tokens: int) -> None:
        """An example of a split."""
        self.splits[split] += 1
        self.documents[split].add(document)
        self.prompt_tokens.append(tokens)

    def figures(self) -> dict[str, float]:
        """Counts and lengths, flat, as metrics."""
        figures: dict[str, float] = {
            "records": self.records,
            "bad": self.bad,
            "duplicates": self.duplicates,
            "over_limit": self.over_limit,
            "over_window": self.over_window,
        }
        for split in SPLITS:
            figures[f"{split}/examples"] = self.splits[split]
            figures[f"{split}/documents"] = len(self.documents[split])
        if self.prompt_tokens:
            figures |= {
                "prompt_tokens/min": min(self.prompt_tokens),
                "prompt_tokens/median": statistics.median(self.prompt_tokens),
                "prompt_tokens/max": max(self.prompt_tokens),
            }
        return {name: float(value) for name, value in figures.items()}

    def refuse_bad(self, *, source: str, allowed: float) -> None:
        """Raises DataError where a larger share than `allowed` was bad."""
        share = self.bad / self.records
        if share > allowed:
            raise DataError(
                f"{self.bad} of {self.records} records of {source} are bad ({share:.1%}; prepare.max_bad_share "
                f"allows {allowed:.1%}). The first of them:\n{_listed(self.first_bad)}"
            )

    def refuse_over_window(self, *, source: str, room: int, window: int) -> None:
        """Raises PolicyError where a prompt was longer than `room`."""
        if self.over_window:
            raise PolicyError(
                f"{self.over_window} of {self.records} prompts of {source} are longer than {room:,} tokens, the "
                f"policy's window of {window:,} less prepare.answer_room: later stages would stop at them. Set "
                "prepare.over_window to drop, or to keep_ends (with sft.over_window, sample.over_window and "
                "train.over_window, which do the cutting), or raise policy.window if the model can. The first of "
                f"them:\n{_listed(self.first_over_window)}"
            )

    def refuse_empty(
        self, *, source: str, expected: Mapping[Split, bool], other_seed: Callable[[], int | None]
    ) -> None:
        """Raises DataError where a split that should hold something is empty; `other_seed()` fills all."""
        for split in SPLITS:
            if expected[split] and not self.splits[split]:
                seed = other_seed()
                remedy = "add documents" if seed is None else f"set prepare.seed to {seed}, which gives each part some"
                documents = len(set().union(*self.documents.values()))
                raise DataError(
                    f"no record of {source} fell to {split}: whole documents are divided, and {documents} are few for "
                    f"these shares; {remedy}, or change prepare.preference_share and prepare.heldout_share"
                )


def _listed(rejected: list[Rejected]) -> str:
    first = rejected[0].place.file
    return "\n".join(f"  {one.place.within(first)}: {one.reason}" for one in rejected)
