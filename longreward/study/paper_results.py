"""The paper's own figures on its two models, for studies with its presets (arXiv 2410.21252, its main results).

LongBench-Chat, LongBench's single- and multi-document QA and summaries, each of 100, and their mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from longreward.study.arms import LONGREWARD, SFT


@dataclass(frozen=True)
class Column:
    """A benchmark's figure: its title, and the name of its metric with a model's run."""

    title: str
    metric: str


COLUMNS = (
    Column("LongBench-Chat", "longbench_chat/score/exact"),
    Column("S-Doc QA", "longbench/class/single_doc_qa/exact"),
    Column("M-Doc QA", "longbench/class/multi_doc_qa/exact"),
    Column("Summ", "longbench/class/summarization/exact"),
)

PAPER: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "paper-llama3.1-8b": {
        SFT: (69.8, 66.1, 44.5, 39.6, 55.0),
        "srm": (67.4, 65.0, 49.6, 42.7, 56.2),
        "contrast": (70.6, 67.8, 46.2, 40.3, 56.2),
        LONGREWARD: (72.6, 67.8, 55.8, 43.2, 59.9),
    },
    "paper-glm4-9b": {
        SFT: (64.8, 68.4, 50.9, 42.1, 56.6),
        "srm": (66.6, 67.5, 57.4, 48.2, 59.9),
        "contrast": (68.2, 67.8, 58.0, 47.8, 60.5),
        LONGREWARD: (69.2, 71.9, 58.8, 48.5, 62.1),
    },
}
