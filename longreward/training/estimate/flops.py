"""What rows ask of a model: tokens, and positions that are scored.

stock      [prompt | chosen  ]  padded to the longer     2 (P + max(C, R)) tokens
           [prompt | rejected]
shared     [prompt | chosen | rejected]                  P + C + R
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longreward.training.estimate.meta_step import Batch

Pair = tuple[int, int, int]
"""Tokens of prompt, chosen and rejected answer; of an example: prompt, answer, 0."""


@dataclass(frozen=True)
class StepFlops:
    """How rows pass the model; `share`: both answers of a pair behind one prompt."""

    pairs: tuple[Pair, ...]
    preference: bool  # pairs, not examples
    share: bool
    every_position: bool  # off CUDA, TRL's LM head scores whole rows

    def batch(self, count: int) -> Batch:
        """The longest `count` of them, which pass the model at once."""
        longest = self._longest(count)
        if self.share:
            return Batch(len(longest), max(map(sum, longest)), tuple(longest))
        rows = len(longest) * (2 if self.preference else 1)
        return Batch(rows, max(_longer(pair) for pair in longest))

    def scored(self, count: int) -> int:
        """Positions of `batch(count)` that pass the LM head."""
        longest = self._longest(count)
        if self.share:
            return 2 * len(longest) * max(max(pair[1:]) for pair in longest)
        if self.every_position:
            batch = self.batch(count)
            return batch.rows * (batch.tokens - 1)
        return sum(chosen + rejected for _, chosen, rejected in longest)

    def tokens(self) -> float:
        """A row's tokens with its padding, on average."""
        return sum(map(self._tokens, self.pairs)) / len(self.pairs)

    def _longest(self, count: int) -> list[Pair]:
        return sorted(self.pairs, key=sum if self.share else _longer, reverse=True)[:count]

    def _tokens(self, pair: Pair) -> int:
        return sum(pair) if self.share or not self.preference else 2 * _longer(pair)


def tokens_of(rows: Any) -> tuple[Pair, ...]:
    """The lengths of `TrainingData.rows`, in memory or on the disk."""
    if isinstance(rows, Sequence):
        preference = "prompt_ids" in rows[0]
        lengths = _pair_lengths if preference else _example_lengths
        return tuple(map(lengths, rows))
    import pyarrow.compute as pc

    def column(name: str) -> list[int]:
        lengths: list[int] = pc.list_value_length(rows.data.column(name)).to_pylist()
        return lengths

    if "prompt_ids" in rows.column_names:
        return tuple(zip(column("prompt_ids"), column("chosen_ids"), column("rejected_ids"), strict=True))
    return tuple(map(_example_lengths, rows))


def _pair_lengths(row: Any) -> Pair:
    return len(row["prompt_ids"]), len(row["chosen_ids"]), len(row["rejected_ids"])


def _example_lengths(row: Any) -> Pair:
    labels = row["labels"]
    prompt = next((at for at, label in enumerate(labels) if label >= 0), len(labels))
    return prompt, len(labels) - prompt, 0


def _longer(pair: Pair) -> int:
    return pair[0] + max(pair[1:])
