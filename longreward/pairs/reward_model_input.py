"""What a reward model reads of a response: the document as far as it fits, the query, the response.

    with a chat template    user: document, blank line, query    assistant: response
    without                 document, query and response, blank lines between

Where that is longer than the window, the document keeps its first and last halves, and query and response stay whole.
Special tokens in any of the three are read as ordinary text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longreward.errors import PolicyError
from longreward.models.chat_encoding import ChatEncoder


@dataclass(frozen=True)
class Rendered:
    """Token ids; `ids` is None where query and response alone are longer than the window."""

    ids: list[int] | None
    cut: bool


def rendered(encoder: ChatEncoder, *, context: str, query: str, response: str, window: int) -> Rendered:
    """PolicyError where the chat template refuses the turns, or the tokenizer does not say where its tokens lie."""
    whole = _ids(encoder, context, query, response)
    if len(whole) <= window:
        return Rendered(whole, cut=False)
    spans = _spans(encoder.tokenizer, context)
    room = len(spans)
    ids = whole
    while len(ids) > window and room > 0:
        room = max(0, room - (len(ids) - window))
        ids = _ids(encoder, both_ends(context, spans, room), query, response)
    return Rendered(ids if len(ids) <= window else None, cut=True)


def both_ends(text: str, spans: Sequence[tuple[int, int]], room: int, *, between: str = "\n") -> str:
    """The first and last halves of `room` of the text's tokens, which lie at `spans`, with `between` in their midst.

    >>> both_ends("one two three four", [(0, 3), (4, 7), (8, 13), (14, 18)], 3)
    'one two\\nfour'
    """
    first, last = room - room // 2, room // 2
    begin = text[: spans[first - 1][1]] if first else ""
    return f"{begin}{between}{text[spans[-last][0] :]}" if last else begin


def _spans(tokenizer: Any, context: str) -> list[tuple[int, int]]:
    if not tokenizer.is_fast:
        raise PolicyError(
            f"{tokenizer.name_or_path}: its tokenizer does not say where its tokens lie (it is no fast one), so "
            "that no document can be cut to the window; name another reward model"
        )
    found = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return [(start, end) for start, end in found]


def _ids(encoder: ChatEncoder, context: str, query: str, response: str) -> list[int]:
    asked = f"{context}\n\n{query}" if context else query
    if not encoder.tokenizer.chat_template:
        return encoder.encode_text(f"{asked}\n\n{response}", add_special_tokens=True)
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": response}]
    return encoder.encode_messages(turns, generate=False)
