"""Whether a text is English or Chinese, told by its script, as the published extraction prompts are picked."""

import re
from typing import Literal

Language = Literal["en", "zh"]


def detect_language(*texts: str) -> Language:
    """ "en" where Latin letters outnumber four times the Han characters, or where there is no Han character at all."""
    latin = sum(len(LATIN.findall(text)) for text in texts)
    han = sum(len(HAN.findall(text)) for text in texts)
    return "en" if han == 0 or latin > 4 * han else "zh"


HAN_RANGE = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # as it stands in a regular expression's [...]
)
HAN = re.compile(f"[{HAN_RANGE}]")
LATIN = re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")
