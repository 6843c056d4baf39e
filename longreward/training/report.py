"""What a training says of itself: figures while it runs, a report at its end."""

from collections.abc import Callable
from dataclasses import dataclass, field

from longreward.training.training_data import LengthStats

Log = Callable[[int, dict[str, float]], None]
"""Called with the update's number and its figures: `loss`; for DPO also `rewards/margins`, `rewards/accuracies`."""


@dataclass(frozen=True)
class TrainingReport:
    """How a training went; `last` holds the figures that were logged last."""

    lengths: LengthStats | None
    steps: int
    resumed_from: int  # the step of the checkpoint that it went on from, 0 where it started anew
    seconds: float
    bf16: bool = False  # computed in bfloat16
    padding: float = 0.0  # share of padding among all tokens that pass the model in a pass over the data
    padding_ungrouped: float = 0.0  # what it would be in random order
    last: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """For metrics."""
        lengths = self.lengths.figures() if self.lengths else {}
        own = {"steps": self.steps, "resumed_from": self.resumed_from, "seconds": self.seconds}
        if self.steps:
            own |= {"bf16": self.bf16, "padding": self.padding, "padding_ungrouped": self.padding_ungrouped}
        return {**lengths, **own, **self.last}
