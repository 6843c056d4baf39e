"""The order in which rows are trained on, and what it costs in padding.

A micro batch is as wide as its longest text, so texts of like length share one. The order depends on the lengths, the
seed and the epoch alone, so that a training that goes on in the midst of an epoch meets the same rows.
"""

import random
from collections.abc import Iterator, Sequence

GROUPS = 50  # sorted together, enough to find rows of like length …
PARTS = 4  # … but no more than a part of the data, so that rows change their company from epoch to epoch


class LengthGroupedSampler:
    """The indices of all rows, once each; a sampler for a data loader, of the epoch that is set."""

    def __init__(self, lengths: Sequence[int], *, group: int, seed: int) -> None:
        """`group` rows that follow one another are of like length: those of one micro batch in all processes.

        1: in random order.
        """
        self.lengths, self.group, self.seed = list(lengths), group, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.of(self.epoch))

    def of(self, epoch: int) -> list[int]:
        """The order of one epoch. The very first group has the longest row: what does not fit fails at once."""
        drawn = random.Random(f"{self.seed}-{epoch}")
        rows = list(range(len(self.lengths)))
        drawn.shuffle(rows)
        together = self.group * max(1, min(GROUPS, len(rows) // (self.group * PARTS)))
        parts = (rows[at : at + together] for at in range(0, len(rows), together))
        ordered = [row for part in parts for row in sorted(part, key=self.lengths.__getitem__, reverse=True)]
        groups = [ordered[at : at + self.group] for at in range(0, len(ordered), self.group)]
        last = groups.pop() if groups and len(groups[-1]) < self.group else []  # elsewhere it would shift the others
        drawn.shuffle(groups)
        if epoch == 0 and groups:
            longest = max(range(len(groups)), key=lambda at: self.lengths[groups[at][0]])
            groups[0], groups[longest] = groups[longest], groups[0]
        return [row for group in [*groups, last] for row in group]


def padding(texts: Sequence[tuple[int, ...]], order: Sequence[int], micro_batch: int) -> float:
    """The share of padding among all tokens that pass the model, rows being taken in this order.

    `texts` holds the tokens of each row's texts: one for an example, two for a pair, one for a pair that shares its
    prompt.

    >>> padding([(6,), (2,), (4,)], [0, 1, 2], micro_batch=2)  # 6 6 | 4: four of sixteen are padding
    0.25
    """
    passed = 0
    for at in range(0, len(order), micro_batch):
        together = [text for row in order[at : at + micro_batch] for text in texts[row]]
        passed += max(together) * len(together)
    return (passed - sum(text for row in order for text in texts[row])) / passed
