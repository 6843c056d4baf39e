"""RULER's 13 tasks: their parameters, limits and metrics.

Source: Hsieh et al. 2024, "RULER" (arXiv 2404.06654), and NVIDIA/RULER, `scripts/synthetic.yaml`,
`scripts/data/synthetic` and `scripts/eval/synthetic`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TaskName = Literal[
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
]
Family = Literal["niah", "variable_tracking", "common_words_extraction", "freq_words_extraction", "qa"]
Haystack = Literal["noise", "essay", "needle"]
NeedleType = Literal["numbers", "words", "uuids"]


@dataclass(frozen=True)
class Niah:
    """The parameters of one needle-in-a-haystack task."""

    haystack: Haystack = "essay"
    key: NeedleType = "words"
    value: NeedleType = "numbers"
    keys: int = 1
    values: int = 1  # of each key
    queries: int = 1


NIAH: dict[TaskName, Niah] = {
    "niah_single_1": Niah("noise"),
    "niah_single_2": Niah(),
    "niah_single_3": Niah(value="uuids"),
    "niah_multikey_1": Niah(keys=4),
    "niah_multikey_2": Niah("needle"),
    "niah_multikey_3": Niah("needle", key="uuids", value="uuids"),
    "niah_multivalue": Niah(values=4),
    "niah_multiquery": Niah(keys=4, queries=4),
}
FAMILIES: dict[TaskName, Family] = {
    **dict.fromkeys(NIAH, "niah"),
    "vt": "variable_tracking",
    "cwe": "common_words_extraction",
    "fwe": "freq_words_extraction",
    "qa_1": "qa",
    "qa_2": "qa",
}
MAX_NEW_TOKENS: dict[Family, int] = {
    "niah": 128,
    "variable_tracking": 30,
    "common_words_extraction": 120,
    "freq_words_extraction": 50,
    "qa": 32,
}
# RULER's defaults.
LENGTHS = (4096, 8192, 16_384, 32_768, 65_536, 131_072)
CASES = 500
SEED = 42
THRESHOLD = 85.6
"""The score of Llama 2 (7B) at 4,096 tokens, which RULER requires at the effective length."""


def match_score(task: TaskName, answer: str, references: Sequence[str]) -> float:
    """Return the share of the references that the answer contains, ignoring case; for qa 1 if it contains any.

    RULER's metrics `string_match_all` and `string_match_part`, for one case and from 0 to 1.

    >>> match_score("vt", "abcde and VWXYZ", ["ABCDE", "FGHIJ"]), match_score("qa_1", "In 1861", ["1861", "March"])
    (0.5, 1.0)
    """
    matches = [reference.lower() in answer.lower() for reference in references]
    return float(any(matches)) if FAMILIES[task] == "qa" else sum(matches) / len(matches)
