"""Split a document into chunks of a limited number of tokens. Joined again, the chunks are exactly the document.

The paper shows the judge short chunks of 128 tokens as evidence for a statement (section 3.1, faithfulness) and long
chunks of 4,096 tokens for the extraction of what the document says about the query (completeness).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from longreward.utils.token_spans import TextTokenizer


@dataclass(frozen=True)
class Chunk:
    """The part `text[start:end]` of a document, which contains the tokens `first_token` to `end_token - 1`."""

    start: int
    end: int
    first_token: int = 0
    end_token: int = 0


def split_text(text: str, size: int, tokenizer: TextTokenizer) -> list[Chunk]:
    """Split a text into chunks of `size` tokens; the last one may be shorter. An empty text has no chunks."""
    return split_tokens(len(text), tokenizer.spans(text), size)


def split_tokens(length: int, spans: Sequence[tuple[int, int]], size: int) -> list[Chunk]:
    """Split a text of `length` characters whose tokens are known.

    Args:
        length: number of characters of the text.
        spans: the (start, end) of each token in characters.
        size: tokens per chunk, at least 1.

    Returns:
        Chunks that cover the text without gaps. Characters between two tokens belong to the chunk of the first.
    """
    # A rare character may consist of several tokens, all but the first of which have empty spans.
    continues_character = [start == end for start, end in spans]
    boundaries = [0]  # the first token of each chunk
    while (boundary := boundaries[-1] + size) < len(spans):
        # Do not split a character: move the boundary back before it, or, if it alone exceeds `size`, forward behind it.
        while boundaries[-1] + 1 < boundary and continues_character[boundary]:
            boundary -= 1
        while boundary < len(spans) and continues_character[boundary]:
            boundary += 1
        boundaries.append(boundary)
    # The first chunk starts at the beginning of the text, not at its first token, so that leading space is covered.
    starts = [(0, 0), *((spans[token][0], token) for token in boundaries[1:]), (length, len(spans))]
    return [
        Chunk(start, end, first_token, end_token)
        for (start, first_token), (end, end_token) in pairwise(starts)
        if start < end
    ]
