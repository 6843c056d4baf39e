"""The order in which rows are trained on, and the padding that it costs.

Without shared prefixes a micro batch is as wide as its longest text, so texts of similar length share one. With shared
prefixes there is no padding, and texts that begin with the same document share one. The order depends on the rows, the
seed and the epoch only, so that a training resumed in the middle of an epoch sees the same rows.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from longreward.training.prefix.row_prefixes import RowPrefixes

# Rows are sorted within blocks of up to MAX_GROUPS groups: enough to find rows of similar length. A block is at
# most 1/MIN_BLOCKS of the data, so that rows meet other rows from epoch to epoch.
MAX_GROUPS = 50
MIN_BLOCKS = 4

T = TypeVar("T")


class RowSampler:
    """A sampler for a data loader that yields the indices of all rows once, in the order of `epoch`."""

    def __init__(self, rows: int, *, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch_order(self.epoch))

    def epoch_order(self, epoch: int) -> list[int]:
        """Return the order of one epoch; epoch 0 starts with the largest micro batch: a lack of memory shows early."""
        raise NotImplementedError


class LengthGroupedSampler(RowSampler):
    """Groups rows of similar length."""

    def __init__(self, lengths: Sequence[int], *, group: int, seed: int) -> None:
        """Put rows of similar length into groups of `group`: a micro batch across all processes. 1: random order."""
        super().__init__(len(lengths), seed=seed)
        self.lengths, self.group = list(lengths), group

    def epoch_order(self, epoch: int) -> list[int]:
        rng = random.Random(f"{self.seed}-{epoch}")
        rows = list(range(self.rows))
        rng.shuffle(rows)
        groups = _group_by_cost(rows, self.lengths.__getitem__, self.group, rng, largest_first=epoch == 0)
        return [row for group in groups for row in group]


class PrefixGroupedSampler(RowSampler):
    """Puts rows with a common prefix into the same micro batch, and micro batches of similar cost into one step."""

    def __init__(self, prefixes: RowPrefixes, *, micro_batch: int, processes: int, seed: int) -> None:
        super().__init__(len(prefixes.order), seed=seed)
        self.prefixes, self.micro_batch, self.processes = prefixes, micro_batch, processes

    def epoch_order(self, epoch: int) -> list[int]:
        rng = random.Random(f"{self.seed}-{epoch}")
        batches = self._micro_batches(rng)
        incomplete = batches.pop() if batches and len(batches[-1]) < self.micro_batch else []
        groups = _group_by_cost(batches, self.prefixes.tokens, self.processes, rng, largest_first=epoch == 0)
        return [row for group in groups for batch in group for row in batch] + incomplete

    def _micro_batches(self, rng: random.Random) -> list[list[int]]:
        """Return all rows in random micro batches, the last of which may be incomplete."""
        size = self.micro_batch
        units: list[list[int]] = []  # rows that stay together
        for family in self.prefixes.families:
            rows = rng.sample(family, len(family))
            units += [rows[start : start + size] for start in range(0, len(rows), size)]
        rng.shuffle(units)
        # Each unit, large ones first, goes where it leaves the least room.
        by_room: list[list[list[int]]] = [[] for _ in range(size + 1)]
        for unit in sorted(units, key=len, reverse=True):
            room = next((room for room in range(len(unit), size + 1) if by_room[room]), None)
            batch = [] if room is None else by_room[room].pop()
            batch += unit
            by_room[size - len(batch)].append(batch)
        left = [row for batches in by_room[1:] for batch in batches for row in batch]
        complete = by_room[0] + [left[start : start + size] for start in range(0, len(left) - size + 1, size)]
        rng.shuffle(complete)
        return complete + ([left[len(left) // size * size :]] if len(left) % size else [])


def build_sampler(
    lengths: Sequence[int],
    prefixes: RowPrefixes | None,
    *,
    grouped: bool,
    micro_batch: int,
    processes: int,
    seed: int,
) -> RowSampler:
    """Return the sampler of a training on rows of these lengths; without `prefixes` they share nothing."""
    if grouped and prefixes is not None:
        return PrefixGroupedSampler(prefixes, micro_batch=micro_batch, processes=processes, seed=seed)
    return LengthGroupedSampler(lengths, group=micro_batch * processes if grouped else 1, seed=seed)


def _group_by_cost(
    items: list[T], cost: Callable[[T], int], size: int, rng: random.Random, *, largest_first: bool
) -> list[list[T]]:
    """Return `items`, which are in random order, in random groups of `size` with similar costs."""
    block = size * max(1, min(MAX_GROUPS, len(items) // (size * MIN_BLOCKS)))
    blocks = (items[start : start + block] for start in range(0, len(items), block))
    ordered = [item for members in blocks for item in sorted(members, key=cost, reverse=True)]
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    # A smaller last group stays last: anywhere else it would shift the groups behind it.
    remainder = [groups.pop()] if groups and len(groups[-1]) < size else []
    rng.shuffle(groups)
    if largest_first and groups:
        largest = max(range(len(groups)), key=lambda index: cost(groups[index][0]))
        groups[0], groups[largest] = groups[largest], groups[0]
    return groups + remainder


def padding_share(text_lengths: Sequence[tuple[int, ...]], order: Sequence[int], micro_batch: int) -> float:
    """Return the share of padding among all tokens that pass the model in this order of rows.

    `text_lengths` holds the tokens of each row's texts: one text for an example, two for a pair.

    >>> padding_share([(6,), (2,), (4,)], [0, 1, 2], micro_batch=2)  # 6 6 | 4: four of sixteen are padding
    0.25
    """
    batches = [
        [text_lengths[row] for row in order[start : start + micro_batch]] for start in range(0, len(order), micro_batch)
    ]
    padded = sum(map(padded_tokens, batches))
    return (padded - sum(length for batch in batches for row in batch for length in row)) / padded


def padded_tokens(text_lengths: Sequence[tuple[int, ...]]) -> int:
    """Return the tokens as which rows with texts of these lengths pass the model together, padding included."""
    lengths = [length for row in text_lengths for length in row]
    return max(lengths) * len(lengths)
