"""The sets of LongBench, their classes and metrics."""

from collections.abc import Sequence
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
    "trec",
    "triviaqa",
    "samsum",
    "lsht",
    "passage_count",
    "passage_retrieval_en",
    "passage_retrieval_zh",
    "lcc",
    "repobench-p",
]
ClassName = Literal["single_doc_qa", "multi_doc_qa", "summarization", "few_shot", "synthetic", "code"]
AutomaticMetric = Literal["f1", "rouge_l", "classification", "count", "retrieval", "code_similarity"]
Grading = Literal["qa", "summary"]


@dataclass(frozen=True)
class LongBenchSet:
    """One set of LongBench."""

    class_name: ClassName
    metric: AutomaticMetric
    chinese: bool

    @property
    def grading(self) -> Grading:
        """Whether the judge grades it as an answer (1 to 3) or as a summary (1 to 5)."""
        return "summary" if self.class_name == "summarization" else "qa"


SETS: dict[SetName, LongBenchSet] = {
    "narrativeqa": LongBenchSet("single_doc_qa", "f1", False),
    "qasper": LongBenchSet("single_doc_qa", "f1", False),
    "multifieldqa_en": LongBenchSet("single_doc_qa", "f1", False),
    "multifieldqa_zh": LongBenchSet("single_doc_qa", "f1", True),
    "hotpotqa": LongBenchSet("multi_doc_qa", "f1", False),
    "2wikimqa": LongBenchSet("multi_doc_qa", "f1", False),
    "musique": LongBenchSet("multi_doc_qa", "f1", False),
    "dureader": LongBenchSet("multi_doc_qa", "rouge_l", True),
    "gov_report": LongBenchSet("summarization", "rouge_l", False),
    "qmsum": LongBenchSet("summarization", "rouge_l", False),
    "multi_news": LongBenchSet("summarization", "rouge_l", False),
    "vcsum": LongBenchSet("summarization", "rouge_l", True),
    "trec": LongBenchSet("few_shot", "classification", False),
    "triviaqa": LongBenchSet("few_shot", "f1", False),
    "samsum": LongBenchSet("few_shot", "rouge_l", False),
    "lsht": LongBenchSet("few_shot", "classification", True),
    "passage_count": LongBenchSet("synthetic", "count", False),
    "passage_retrieval_en": LongBenchSet("synthetic", "retrieval", False),
    "passage_retrieval_zh": LongBenchSet("synthetic", "retrieval", True),
    "lcc": LongBenchSet("code", "code_similarity", False),
    "repobench-p": LongBenchSet("code", "code_similarity", False),
}
CLASSES: tuple[ClassName, ...] = get_args(ClassName)
JUDGED_CLASSES = CLASSES[:3]
JUDGED_SETS = tuple(name for name in SETS if SETS[name].class_name in JUDGED_CLASSES)
"""The sets of LongReward's evaluation."""
EXTENDED_SETS: tuple[SetName, ...] = (
    *("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa", "samsum"),
    *("passage_count", "passage_retrieval_en", "lcc", "repobench-p"),
)
"""The sets of LongBench-E."""
MAX_RATING: dict[Grading, int] = {"qa": 3, "summary": 5}  # the lowest rating is 1


def class_weights(sets: Sequence[SetName]) -> dict[str, float]:
    """Return the weight of each set in the mean over classes of the mean over their sets.

    >>> class_weights(["qasper", "hotpotqa", "musique"])
    {'qasper': 0.5, 'hotpotqa': 0.25, 'musique': 0.25}
    """
    sizes = {class_name: sum(SETS[name].class_name == class_name for name in sets) for class_name in CLASSES}
    classes = sum(size > 0 for size in sizes.values())
    return {name: 1 / classes / sizes[SETS[name].class_name] for name in sets}
