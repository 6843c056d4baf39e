"""Whether a tokenizer gives back what it is given: one that does not would train on other words than the data's.

White space, Unicode forms (NFC, NFKC) and letter case may change. A word that the tokenizer does not know may be left
out, since a vocabulary without Chinese still serves English data; no word may turn into another, and none may run into
its neighbour.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

from longreward.errors import PolicyError
from longreward.utils.language import HAN_RANGE

ENGLISH = "Who was the first of the two? It's 1,024.5 km (not less): the town, in the north of the river, and café."
CHINESE = "这座城镇在河的北边，建于1912年。谁是第一个？"


def check_round_trip(tokenizer: Any, path: str | Path) -> None:
    """Raises PolicyError with what went in and what came out. `path` is the model's, for the message."""
    for probe in (ENGLISH, CHINESE):
        ids = tokenizer(probe, add_special_tokens=False, verbose=False)["input_ids"]
        out = str(tokenizer.decode(ids, skip_special_tokens=True))
        given, back = normalized_words(probe), normalized_words(out)
        all_known = probe is ENGLISH and tokenizer.unk_token_id not in ids
        if back != given if all_known else not _in_order(back, given):
            raise PolicyError(
                f"{path}: the tokenizer ({type(tokenizer).__name__}) does not give back what it is given: {probe!r} "
                f"comes out as {out!r}; it is not the one that the model was trained with, or was loaded as another "
                "class (see tokenizer_class in tokenizer_config.json)"
            )


def normalized_words(text: str) -> list[str]:
    """What must come back: words, Han characters one by one, and punctuation marks, in one Unicode form and case."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _in_order(some: list[str], of_all: list[str]) -> bool:
    """Whether `some` are words of `of_all`, in their order."""
    rest = iter(of_all)
    return all(word in rest for word in some)


WORD = re.compile(rf"[{HAN_RANGE}]|[^\W{HAN_RANGE}]+|[^\w\s]")
