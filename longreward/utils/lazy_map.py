"""A sequence whose items are computed on access, so that they need not be in memory together."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")


class LazyMap(Sequence[R], Generic[R]):
    """What `function` returns for the items at the same position of sequences of equal length.

    >>> [*LazyMap(lambda letter, number: letter * number, "abc", range(1, 4))[1:]]
    ['bb', 'ccc']
    """

    def __init__(self, function: Callable[..., R], *sequences: Sequence[Any]) -> None:
        """Raises ValueError if the sequences have different lengths."""
        if len(lengths := {len(sequence) for sequence in sequences}) != 1:
            raise ValueError(f"the sequences have different lengths: {sorted(lengths)}")
        self._function, self._sequences = function, sequences

    def __len__(self) -> int:
        return len(self._sequences[0])

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyMap[R]": ...
    def __getitem__(self, index: int | slice) -> "R | LazyMap[R]":
        items = [sequence[index] for sequence in self._sequences]
        return LazyMap(self._function, *items) if isinstance(index, slice) else self._function(*items)


def lazy_zip(first: Sequence[A], second: Sequence[B]) -> Sequence[tuple[A, B]]:
    """Return the pairs of items at the same position. Raises ValueError if the sequences have different lengths.

    >>> lazy_zip("ab", range(2))[1]
    ('b', 1)
    """
    return LazyMap(lambda *items: items, first, second)
