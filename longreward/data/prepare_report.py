"""The report of `prepare`: counts per split, rejected records, prompt lengths, and checks of these."""

import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from longreward.data.source import RejectedRecord, RejectionKind
from longreward.errors import DataError, PolicyError

Split = Literal["sft", "preference", "heldout"]
SPLITS: tuple[Split, ...] = ("sft", "preference", "heldout")
LISTED_RECORDS = 10  # in an error message; rejected.jsonl contains all


@dataclass
class PrepareReport:
    """Counts of records; lengths are tokens of the whole prompt with the policy's tokenizer."""

    records: int = 0
    rejected: Counter[RejectionKind] = field(default_factory=Counter)
    """Counts by kind, including prompts over the window that are kept."""
    first_rejected: dict[RejectionKind, list[RejectedRecord]] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)
    documents: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    # An array takes 8 bytes per record, a list of ints up to 36.
    prompt_tokens: "array[int]" = field(default_factory=lambda: array("q"))

    def count_rejected(self, rejected: RejectedRecord) -> None:
        """Count a rejected record by its kind."""
        self.rejected[rejected.kind] += 1
        listed = self.first_rejected.setdefault(rejected.kind, [])
        if len(listed) < LISTED_RECORDS:
            listed.append(rejected)

    def count_kept(self, split: Split, document: str, tokens: int) -> None:
        """Count an example of a split."""
        self.splits[split] += 1
        self.documents[split].add(document)
        self.prompt_tokens.append(tokens)

    def metrics(self) -> dict[str, float]:
        """Return counts and lengths as metrics."""
        # Names of metrics in MLflow and metrics/prepare.json.
        metrics: dict[str, float] = {
            "records": self.records,
            "bad": self.rejected["bad"],
            "duplicates": self.rejected["duplicate"],
            "over_limit": self.rejected["over_limit"],
            "over_window": self.rejected["over_window"],
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
        bad = self.rejected["bad"]
        if bad / self.records > allowed:
            raise DataError(
                f"{bad} of {self.records} records of {source} are bad ({bad / self.records:.1%}; prepare.max_bad_share "
                f"allows {allowed:.1%}). The first of them:\n{self._list_first('bad')}"
            )

    def check_prompt_lengths(self, *, source: str, limit: int, window: int) -> None:
        """Raise PolicyError if a prompt exceeds `limit` tokens."""
        if over_window := self.rejected["over_window"]:
            raise PolicyError(
                f"{over_window} of {self.records} prompts of {source} are longer than {limit:,} tokens, the "
                f"policy's window of {window:,} minus prepare.answer_room, and later stages would reject them. Set "
                "prepare.over_window to drop, or to keep_ends (with sft.over_window, sample.over_window and "
                "train.over_window, which truncate them), or raise policy.window if the model allows it. The first of "
                f"them:\n{self._list_first('over_window')}"
            )

    def _list_first(self, kind: RejectionKind) -> str:
        records = self.first_rejected[kind]
        file = records[0].location.file
        return "\n".join(f"  {record.location.relative_to(file)}: {record.reason}" for record in records)
