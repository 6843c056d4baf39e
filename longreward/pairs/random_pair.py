"""Random pairs: a control whose pairs carry no information about quality."""

import random
from collections.abc import Iterable

from longreward.pairs.config import SelectionConfig
from longreward.pairs.outcomes import (
    Outcome,
    can_be_chosen,
    make_no_pair,
    make_pair,
    reason_without_pair,
    sampling_order,
)
from longreward.records import Example, Response


def random_pair(config: SelectionConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """Select two different texts; the result depends only on `config.seed` and the example's id."""
    sampled = sampling_order(config, responses)
    if (reason := reason_without_pair(config, sampled)) is not None:
        return make_no_pair(example, reason, sampled)
    # A stream per example, so that the result does not depend on the other examples or their order.
    shuffled = random.Random(f"longreward random {config.seed} {example.id}").sample(sampled, len(sampled))
    choosable = can_be_chosen(config, shuffled)
    chosen = next(response for response, may in zip(shuffled, choosable, strict=True) if may)
    rejected = next(response for response in shuffled if response.text != chosen.text)
    return make_pair(example, chosen, rejected, method="random")
