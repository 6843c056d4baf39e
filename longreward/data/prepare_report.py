"""The report of `prepare`: counts per split, rejected records, prompt lengths, and checks of these."""

import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from longreward.data.source import RejectedRecord
from longreward.errors import DataError, PolicyError

Split = Literal["sft", "preference", "heldout"]
SPLITS: tuple[Split, ...] = ("sft", "preference", "heldout")
LISTED_RECORDS = 10  # in an error message; rejected.jsonl contains all


@dataclass
class PrepareReport:
    """Counts of records; lengths are tokens of the whole prompt with the policy's tokenizer."""

    records: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    documents: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    bad: int = 0
    first_bad: list[RejectedRecord] = field(default_factory=list)
    duplicates: int = 0
    held_out: int = 0
    over_limit: int = 0
    over_window: int = 0
    first_over_window: list[RejectedRecord] = field(default_factory=list)
    # An array takes 8 bytes per record, a list of ints up to 36.
    prompt_tokens: "array[int]" = field(default_factory=lambda: array("q"))

    def count_rejected(self, rejected: RejectedRecord) -> None:
        """Count a bad, duplicate or held-out record."""
        self.duplicates += rejected.kind == "duplicate"
        self.held_out += rejected.kind == "held_out"
        if rejected.kind == "bad":
            self.bad += 1
            if len(self.first_bad) < LISTED_RECORDS:
                self.first_bad.append(rejected)

    def count_over_window(self, rejected: RejectedRecord) -> None:
        """Count a prompt that exceeds the window, whether or not it is kept."""
        self.over_window += 1
        if len(self.first_over_window) < LISTED_RECORDS:
            self.first_over_window.append(rejected)

    def count_kept(self, split: Split, document: str, tokens: int) -> None:
        """Count an example of a split."""
        self.splits[split] += 1
        self.documents[split].add(document)
        self.prompt_tokens.append(tokens)

    def metrics(self) -> dict[str, float]:
        """Return counts and lengths as metrics."""
        # Names of metrics in MLflow and metrics/prepare.json.
        metrics: dict[str, float] = {
            name: getattr(self, name) for name in ("records", "bad", "duplicates", "over_limit", "over_window")
        }
        for split in SPLITS:
            metrics[f"{split}/examples"] = self.splits[split]
            metrics[f"{split}/documents"] = len(self.documents[split])
        if self.prompt_tokens:
            metrics |= {
                "prompt_tokens/min": min(self.prompt_tokens),
                "prompt_tokens/median": statistics.median(self.prompt_tokens),
                "prompt_tokens/max": max(self.prompt_tokens),
            }
        return {name: float(value) for name, value in metrics.items()}

    def check_bad_share(self, *, source: str, allowed: float) -> None:
        """Raise DataError if the share of bad records exceeds `allowed`."""
        share = self.bad / self.records
        if share > allowed:
            raise DataError(
                f"{self.bad} of {self.records} records of {source} are bad ({share:.1%}; prepare.max_bad_share "
                f"allows {allowed:.1%}). The first of them:\n{_list(self.first_bad)}"
            )

    def check_prompt_lengths(self, *, source: str, limit: int, window: int) -> None:
        """Raise PolicyError if a prompt exceeds `limit` tokens."""
        if self.over_window:
            raise PolicyError(
                f"{self.over_window} of {self.records} prompts of {source} are longer than {limit:,} tokens, the "
                f"policy's window of {window:,} minus prepare.answer_room, and later stages would reject them. Set "
                "prepare.over_window to drop, or to keep_ends (with sft.over_window, sample.over_window and "
                "train.over_window, which truncate them), or raise policy.window if the model allows it. The first of "
                f"them:\n{_list(self.first_over_window)}"
            )


def _list(rejected: list[RejectedRecord]) -> str:
    file = rejected[0].location.file
    return "\n".join(f"  {record.location.relative_to(file)}: {record.reason}" for record in rejected)
