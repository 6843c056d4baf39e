r"""What the judge says of a sentence's facts, and of one fact.

"- Mara Voss was born in Kelden.\n- Mara Voss was born in 1871."      two facts; "No fact." is none
"True"                                                                supported
"""

import re
import string


def read_facts(text: str) -> tuple[str, ...] | None:
    """The facts listed, each once; empty where the judge says that there is none; None where it lists nothing.

    >>> read_facts("- Keld is a village.\\n- Keld lies on the Tarn.\\n- Keld is a village.")
    ('Keld is a village.', 'Keld lies on the Tarn.')
    """
    found = tuple(dict.fromkeys(fact.strip() for fact in _LISTED.findall(text) if _WORD.search(fact)))
    if found:
        return () if len(found) == 1 and _NONE.match(found[0]) else found
    return () if _NONE.match(text.strip()) else None


def published(text: str) -> float:
    """1 or 0 as FactScore's code takes an answer: of true and false the one that comes first loses, and where neither
    is said the fact is supported unless one of four words is.

    >>> published("True."), published("It is not true, it is false."), published("The context agrees.")
    (1.0, 0.0, 1.0)
    >>> published("False? No, it is true.")
    1.0
    """
    said = text.lower()
    true, false = said.find("true"), said.find("false")
    if true >= 0 or false >= 0:
        return float(true > false)
    words = said.translate(str.maketrans("", "", string.punctuation)).split()
    return float(not any(word in words for word in ("not", "cannot", "unknown", "information")))


def as_asked(text: str) -> float | None:
    """1 or 0 where the answer is the word asked for, with nothing said before it; None for any other.

    >>> as_asked("**False**: it was built in 1901."), as_asked("I think it is true.")
    (0.0, None)
    """
    match = _VERDICT.match(text)
    return None if match is None else float(match.group(1).lower() == "true")


_LISTED = re.compile(r"^[^\S\n]*(?:[-*•–]|\d{1,3}[.)])[^\S\n]+(\S[^\n]*)$", re.MULTILINE)
_NONE = re.compile(r"no facts?\b|none\b|没有", re.IGNORECASE)
_WORD = re.compile(r"\w")
_VERDICT = re.compile(r"[^\w]{0,20}(true|false)\b", re.IGNORECASE)
