"""Contrast (paper, section 4.1): the data's own answer, of a stronger model, wins against one of the SFT model's."""

import random
from collections.abc import Iterable

from longreward.pairs.selection import NoPair, Outcome, PairConfig, pair_without_rewards, sampled_order
from longreward.records import Example, Response


def contrast_pair(config: PairConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """The loser is drawn by `config.seed` and the example's id from the responses that differ from the answer."""
    sampled = sampled_order(config, responses)
    if not sampled:
        return NoPair(example.id, "no responses", 0, 0, None)
    answer = (example.answer or "").strip()
    if not answer:
        return NoPair(example.id, "no answer of its own", len(sampled), len(sampled), None)
    losers = [one for one in sampled if one.text.strip() != answer]
    if not losers:
        return NoPair(example.id, "its own answer was sampled", len(sampled), len(sampled), None)
    own = Response(id=f"{example.id}-answer", example_id=example.id, query=example.query, text=answer)
    loser = random.Random(f"longreward contrast {config.seed} {example.id}").choice(losers)
    return pair_without_rewards(example, own, loser, method="contrast")
