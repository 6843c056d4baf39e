"""Which rows of a training begin with the same tokens, as those about one document do.

Reads rows from their Arrow file without copying them: a file may be larger than the memory. Needs no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, cmp_to_key
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from longreward.training.prefix.text_tree import Tokens, common_prefix, shared_tokens

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class RowPrefixes:
    """What rows share at their start: an example's text, a pair's prompt."""

    order: tuple[int, ...]
    """The rows, sorted by their tokens: the more two of them share, the closer they stand."""
    common: tuple[int, ...]
    """With how many tokens of the row before it each row in this order begins."""
    lengths: tuple[int, ...]
    """Tokens as which each row passes the model by itself, in the order of the data."""
    starts: tuple[int, ...]
    """Tokens of each row that other rows may share, in the order of the data."""

    @classmethod
    def of_rows(cls, rows: "datasets.Dataset") -> "RowPrefixes":
        """Compare rows of `input_ids`, or of `prompt_ids`, `chosen_ids` and `rejected_ids`."""
        if "prompt_ids" in rows.column_names:
            texts = list(_views(rows, "prompt_ids"))
            answers = [[*map(len, _views(rows, name))] for name in ("chosen_ids", "rejected_ids")]
            lengths = [
                2 * len(text) + chosen + rejected - shared_tokens(len(text), len(text) + min(chosen, rejected))
                for text, chosen, rejected in zip(texts, *answers, strict=True)
            ]
        else:
            texts = list(_views(rows, "input_ids"))
            lengths = [*map(len, texts)]

        def compare(first: int, second: int) -> int:
            one, other = texts[first], texts[second]
            shared = common_prefix(one, other)
            if shared == min(len(one), len(other)):
                return len(one) - len(other)
            return int(one[shared]) - int(other[shared])

        order = sorted(range(len(texts)), key=cmp_to_key(compare))
        common = (common_prefix(texts[first], texts[second]) for first, second in pairwise(order))
        return cls(tuple(order), (0, *common), tuple(lengths), tuple(map(len, texts)))

    def tokens(self, rows: Sequence[int]) -> int:
        """Return the tokens that pass the model for these rows together."""
        ranks = sorted(self._ranks[row] for row in rows)
        shared = sum(
            shared_tokens(int(self._common[low + 1 : high + 1].min()), self.starts[self.order[high]])
            for low, high in pairwise(ranks)
        )
        return sum(self.lengths[row] for row in rows) - shared

    @cached_property
    def families(self) -> list[list[int]]:
        """Return groups of rows that share at least half of their tokens with another one of the group."""
        families: list[list[int]] = []
        for rank, (row, common) in enumerate(zip(self.order, self.common, strict=True)):
            if rank and 2 * common >= min(self.starts[row], self.starts[self.order[rank - 1]]):
                families[-1].append(row)
            else:
                families.append([row])
        return families

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {row: rank for rank, row in enumerate(self.order)}

    @cached_property
    def _common(self) -> Tokens:
        return np.asarray(self.common)


def _views(rows: "datasets.Dataset", column: str) -> Iterator[Tokens]:
    for chunk in rows.data.column(column).chunks:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        for start, stop in pairwise(offsets.tolist()):
            yield np.asarray(values[start:stop])
