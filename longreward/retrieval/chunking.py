"""Cuts a document into slices of a limited number of tokens; joined again, they are the document to the letter."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from longreward.utils.token_spans import TextTokenizer


@dataclass(frozen=True)
class Chunk:
    """The slice `text[start:end]`."""

    start: int
    end: int
    first_token: int = 0
    """How many tokens stand before the slice."""
    end_token: int = 0
    """How many tokens stand before its end."""


def split_text(text: str, size: int, tokenizer: TextTokenizer) -> list[Chunk]:
    """Slices of up to `size` tokens, none where the text is empty.

    Every slice but the last is full; the space between two tokens belongs to the slice of the first.
    """
    return split_tokens(len(text), tokenizer.spans(text), size)


def split_tokens(length: int, spans: Sequence[tuple[int, int]], size: int) -> list[Chunk]:
    """The same for a text of `length` characters whose tokens are known; `size` is at least 1."""
    bounds, first = [(0, 0)], 0
    while (following := _next_first(spans, first, size)) < len(spans):
        bounds.append((spans[following][0], following))
        first = following
    bounds.append((length, len(spans)))
    return [
        Chunk(start, end, first_token, end_token)
        for (start, first_token), (end, end_token) in pairwise(bounds)
        if start < end
    ]


def _next_first(spans: Sequence[tuple[int, int]], first: int, size: int) -> int:
    """The token that opens the next slice. A character of several tokens stays whole, even where it exceeds `size`."""
    after = first + size
    while first + 1 < after < len(spans) and _continues(spans, after):
        after -= 1
    while after < len(spans) and _continues(spans, after):
        after += 1
    return after


def _continues(spans: Sequence[tuple[int, int]], token: int) -> bool:
    return spans[token][0] == spans[token][1]
