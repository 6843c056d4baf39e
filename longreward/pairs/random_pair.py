"""The control: two of a prompt's responses by seed, the first that may be chosen against another text.

Such pairs say nothing about worth.
"""

import random
from collections.abc import Iterable

from longreward.pairs.selection import (
    NoPair,
    NoPairReason,
    Outcome,
    PairConfig,
    can_be_chosen,
    pair_without_rewards,
    sampled_order,
)
from longreward.records import Example, Response


def random_pair(config: PairConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """Two different texts; the draw depends on `config.seed` and the example's id alone."""
    sampled = sampled_order(config, responses)
    if len(sampled) < config.min_scored:
        reason: NoPairReason = "too few scored responses" if sampled else "no responses"
        return NoPair(example.id, reason, len(sampled), len(sampled), None)
    drawn = random.Random(f"longreward random {config.seed} {example.id}").sample(sampled, len(sampled))
    chosen = next((one for one, may in zip(drawn, can_be_chosen(config, drawn), strict=True) if may), None)
    if chosen is None:
        return NoPair(example.id, "all responses are truncated", len(sampled), len(sampled), None)
    other = next((one for one in drawn if one.text != chosen.text), None)
    if other is None:
        return NoPair(example.id, "all responses are the same", len(sampled), len(sampled), None)
    return pair_without_rewards(example, chosen, other, method="random")
