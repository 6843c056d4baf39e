"""A number that is not known yet: what it is expected to be, and between which two it should lie."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Range:
    """`low <= expected <= high`; all three are equal where the number is known."""

    low: float = 0.0
    expected: float = 0.0
    high: float = 0.0

    @classmethod
    def exactly(cls, value: float) -> Self:
        """A number that is known."""
        return cls(value, value, value)

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        """Of two that are not negative."""
        by = other if isinstance(other, Range) else Range.exactly(other)
        return Range(self.low * by.low, self.expected * by.expected, self.high * by.high)

    @property
    def known(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    def as_json(self) -> dict[str, float]:
        """Its three numbers by name."""
        return {"low": self.low, "expected": self.expected, "high": self.high}
