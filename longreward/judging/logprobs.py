r"""An answer together with how probable its tokens were, in one text, so that the ledger needs no column for it.

    with_logprobs("m", {"content": [{"token": "m", "top_logprobs": [{"token": "m", "logprob": -0.02}, …]}]})
    {"text": "m", "top_logprobs": [{"m": -0.02, "M": -4.05}]}

Only a question with `top_logprobs` is answered so. Where the server gives no probabilities the text stays as it is.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Weighed:
    """What was said, and for each token of it the logarithms of the probabilities of the likeliest there."""

    text: str
    tokens: tuple[Mapping[str, float], ...]  # empty: the server gave none


def with_logprobs(text: str, given: Any) -> str:
    """The answer's text with the `logprobs` of its choice; the bare text where they hold none."""
    tokens = [_top(token) for token in given.get("content") or []] if isinstance(given, dict) else []
    if not any(tokens):
        return text
    listed = ", ".join("{" + ", ".join(f"{_quoted(t)}: {p!r}" for t, p in top.items()) + "}" for top in tokens)
    return f'{{"text": {_quoted(text)}, "top_logprobs": [{listed}]}}'


def weighed(text: str) -> Weighed:
    """What `with_logprobs` put together; any other text is one without probabilities."""
    try:
        row = json.loads(text)
        tokens = tuple({str(t): float(p) for t, p in top.items()} for top in row["top_logprobs"])
        return Weighed(str(row["text"]), tokens)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Weighed(text, ())


def _top(token: Any) -> dict[str, float]:
    """Of tokens that are named twice, as parts of characters are, the likelier counts, which servers name first."""
    found: dict[str, float] = {}
    for each in token.get("top_logprobs") or [] if isinstance(token, dict) else []:
        name, value = each.get("token"), each.get("logprob")
        if isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(name, float(value))
    return found


def _quoted(text: str) -> str:
    """As JSON, without the signs that open the mark of a thought: a token that is such a mark was no thought."""
    return json.dumps(text).replace("<", "\\u003c").replace("[", "\\u005b")
