"""Detect whether a text is English or Chinese, by its script. The published extraction prompts are chosen this way."""

import re
from typing import Literal

Language = Literal["en", "zh"]

# Ranges as they stand in the [...] of a regular expression.
HAN_RANGE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
HAN = re.compile(f"[{HAN_RANGE}]")
LATIN = re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")


def detect_language(*texts: str) -> Language:
    """Return "en" where Latin letters outnumber Han characters by more than four to one, or no character is Han."""
    latin = sum(len(LATIN.findall(text)) for text in texts)
    han = sum(len(HAN.findall(text)) for text in texts)
    return "en" if han == 0 or latin > 4 * han else "zh"
