"""The twelve sets: to which class each belongs, how its answers are graded, measured and limited."""

from dataclasses import dataclass
from typing import Literal, get_args

SetName = Literal[
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "multifieldqa_zh",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "dureader",
    "gov_report",
    "qmsum",
    "multi_news",
    "vcsum",
]
ClassName = Literal["single_doc_qa", "multi_doc_qa", "summarization"]
Metric = Literal["f1", "rouge_l"]
Grading = Literal["qa", "summary"]
Limits = Literal["longreward", "longbench"]


@dataclass(frozen=True)
class Set:
    """One set of LongBench. `tokens` is the longest answer that LongBench's own code lets a model give."""

    group: ClassName
    metric: Metric
    chinese: bool
    tokens: int

    @property
    def grading(self) -> Grading:
        """As an answer, 1 to 3, or as a summary, 1 to 5."""
        return "summary" if self.group == "summarization" else "qa"


SETS: dict[SetName, Set] = {
    "narrativeqa": Set("single_doc_qa", "f1", False, 128),
    "qasper": Set("single_doc_qa", "f1", False, 128),
    "multifieldqa_en": Set("single_doc_qa", "f1", False, 64),
    "multifieldqa_zh": Set("single_doc_qa", "f1", True, 64),
    "hotpotqa": Set("multi_doc_qa", "f1", False, 32),
    "2wikimqa": Set("multi_doc_qa", "f1", False, 32),
    "musique": Set("multi_doc_qa", "f1", False, 32),
    "dureader": Set("multi_doc_qa", "rouge_l", True, 128),
    "gov_report": Set("summarization", "rouge_l", False, 512),
    "qmsum": Set("summarization", "rouge_l", False, 512),
    "multi_news": Set("summarization", "rouge_l", False, 512),
    "vcsum": Set("summarization", "rouge_l", True, 512),
}
CLASSES: tuple[ClassName, ...] = get_args(ClassName)
HIGHEST: dict[Grading, int] = {"qa": 3, "summary": 5}
"""The best rating; the worst is 1."""
MAX_NEW_TOKENS = 1024  # LongReward's, for every set
