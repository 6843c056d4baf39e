"""The order in which rows are trained on, and the padding that it costs.

A micro batch is as wide as its longest text, so texts of similar length share one. The order depends on the lengths,
the seed and the epoch only, so that a training resumed in the middle of an epoch sees the same rows.
"""

import random
from collections.abc import Iterator, Sequence

# Rows are sorted within blocks of up to MAX_GROUPS micro batches: enough to find rows of similar length. A block is at
# most 1/MIN_BLOCKS of the data, so that rows meet other rows from epoch to epoch.
MAX_GROUPS = 50
MIN_BLOCKS = 4


class LengthGroupedSampler:
    """A sampler for a data loader that yields the indices of all rows once, in the order of `epoch`."""

    def __init__(self, lengths: Sequence[int], *, group: int, seed: int) -> None:
        """Put rows of similar length into groups of `group`: a micro batch across all processes. 1: random order."""
        self.lengths, self.group, self.seed = list(lengths), group, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch_order(self.epoch))

    def epoch_order(self, epoch: int) -> list[int]:
        """Return the order of one epoch; epoch 0 starts with the longest row: a lack of memory shows early."""
        rng = random.Random(f"{self.seed}-{epoch}")
        rows = list(range(len(self.lengths)))
        rng.shuffle(rows)
        block = self.group * max(1, min(MAX_GROUPS, len(rows) // (self.group * MIN_BLOCKS)))
        blocks = (rows[start : start + block] for start in range(0, len(rows), block))
        ordered = [row for members in blocks for row in sorted(members, key=self.lengths.__getitem__, reverse=True)]
        groups = [ordered[start : start + self.group] for start in range(0, len(ordered), self.group)]
        # A smaller last group stays last: anywhere else it would shift the groups behind it.
        remainder = groups.pop() if groups and len(groups[-1]) < self.group else []
        rng.shuffle(groups)
        if epoch == 0 and groups:
            longest = max(range(len(groups)), key=lambda index: self.lengths[groups[index][0]])
            groups[0], groups[longest] = groups[longest], groups[0]
        return [row for group in [*groups, remainder] for row in group]


def padding_share(text_lengths: Sequence[tuple[int, ...]], order: Sequence[int], micro_batch: int) -> float:
    """Return the share of padding among all tokens that pass the model in this order of rows.

    `text_lengths` holds the tokens of each row's texts: one text for an example, two for a pair, one for a pair that
    shares its prompt.

    >>> padding_share([(6,), (2,), (4,)], [0, 1, 2], micro_batch=2)  # 6 6 | 4: four of sixteen are padding
    0.25
    """
    padded = 0
    for start in range(0, len(order), micro_batch):
        batch = [length for row in order[start : start + micro_batch] for length in text_lengths[row]]
        padded += max(batch) * len(batch)
    return (padded - sum(length for row in order for length in text_lengths[row])) / padded
