"""What a training reports: metrics while it runs, a TrainingReport at its end."""

from collections.abc import Callable
from dataclasses import dataclass, field

from longreward.training.training_data import LengthStats

Log = Callable[[int, dict[str, float]], None]
"""Called with a step and its metrics: `loss`; for DPO also `rewards/margins`, `rewards/accuracies`."""


@dataclass(frozen=True)
class TrainingReport:
    """The outcome of a training."""

    lengths: LengthStats | None
    steps: int
    resumed_from: int
    """The step of the checkpoint that it resumed from; 0: it started from the beginning."""
    seconds: float
    bf16: bool = False
    padding: float = 0.0
    """Share of padding among all tokens that pass the model in one epoch."""
    last: dict[str, float] = field(default_factory=dict)
    """The metrics that were logged last."""

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the stage."""
        metrics: dict[str, float] = self.lengths.metrics() if self.lengths else {}
        metrics |= {"steps": self.steps, "resumed_from": self.resumed_from, "seconds": self.seconds}
        if self.steps:
            metrics |= {"bf16": self.bf16, "padding": self.padding}
        return metrics | self.last
