"""Round-trip check of a tokenizer: decoding the ids of a text must give that text back.

A tokenizer that fails would train the model on other words than those of the data. White space, Unicode form
(NFC, NFKC) and letter case may change. Unknown words may be dropped, since a vocabulary without Chinese still serves
English data. No word may turn into another word or merge with its neighbour.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

from longreward.errors import PolicyError
from longreward.utils.language import HAN_RANGE

ENGLISH = "Who was the first of the two? It's 1,024.5 km (not less): the town, in the north of the river, and café."
CHINESE = "这座城镇在河的北边，建于1912年。谁是第一个？"
TOKEN = re.compile(rf"[{HAN_RANGE}]|[^\W{HAN_RANGE}]+|[^\w\s]")


def check_round_trip(tokenizer: Any, path: str | Path) -> None:
    """Raise PolicyError if `tokenizer` does not reproduce the test sentences; `path` names the model in the message."""
    for text in (ENGLISH, CHINESE):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        decoded = str(tokenizer.decode(ids, skip_special_tokens=True))
        expected, actual = normalized_words(text), normalized_words(decoded)
        must_be_equal = text is ENGLISH and tokenizer.unk_token_id not in ids
        if actual != expected if must_be_equal else not _is_subsequence(actual, expected):
            raise PolicyError(
                f"{path}: the tokenizer ({type(tokenizer).__name__}) fails the round trip: {text!r} is decoded as "
                f"{decoded!r}; the model was trained with another tokenizer, or this one was loaded as the wrong class "
                "(see tokenizer_class in tokenizer_config.json)"
            )


def normalized_words(text: str) -> list[str]:
    """Split into words, single Han characters and punctuation marks, in one Unicode form (NFKC) and in lower case."""
    return TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def _is_subsequence(words: list[str], reference: list[str]) -> bool:
    remaining = iter(reference)
    return all(word in remaining for word in words)
