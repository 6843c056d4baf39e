"""How well long and short pairs are told apart, each side for itself, where both are trained on.

    rewards/margins             the trainer's own figures, over all pairs
    long/rewards/margins        over those with a document
    short/rewards/margins       over those without

The trainer keeps means alone, so that the answers' log-probabilities are looked at as they leave the model. Without a
short pair nothing of this takes place.

Imports torch at its top, so import it only where a training starts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from longreward.records import is_short

SIDE = "short_pairs"


@dataclass(frozen=True)
class SourceTaggingCollator:
    """A collator whose batches say which pairs are short, [pairs] of 0 and 1, under SIDE."""

    collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        batch[SIDE] = torch.tensor([float(is_short(row["id"])) for row in rows])
        return batch


def log_by_source(trainer: Any) -> None:
    """Makes a trainer of pairs keep the figures of each side, where there are short ones."""
    if any(map(is_short, trainer.train_dataset["id"])):
        trainer.data_collator = SourceTaggingCollator(trainer.data_collator)


@contextmanager
def capture_logps(model: Any) -> Iterator[list[torch.Tensor]]:
    """The log-probabilities of the tokens, [2 * pairs, tokens], of each batch that passes the model meanwhile."""
    found: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, positional, output: found.append(output.log_probs.detach()))
    try:
        yield found
    finally:
        hook.remove()


def figures_by_side(margins: Sequence[float], short: Sequence[float]) -> dict[str, list[float]]:
    """Each pair's figures under its side's names.

    >>> figures_by_side([1.5, -0.5], [0.0, 1.0])["short/rewards/accuracies"]
    [0.0]
    """
    found: dict[str, list[float]] = {}
    for margin, without in zip(margins, short, strict=True):
        side = "short" if without else "long"
        found.setdefault(f"{side}/rewards/margins", []).append(margin)
        found.setdefault(f"{side}/rewards/accuracies", []).append(float(margin > 0))
    return found
