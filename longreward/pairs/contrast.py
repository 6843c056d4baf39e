"""Contrast (paper, section 4.1): the reference answer, from a stronger model, is chosen; a sampled one is rejected."""

import random
from collections.abc import Iterable

from longreward.pairs.config import SelectionConfig
from longreward.pairs.outcomes import Outcome, make_no_pair, make_pair, sampling_order
from longreward.records import Example, Response


def contrast_pair(config: SelectionConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """Reject a response that differs from the reference answer, selected by `config.seed` and the example's id."""
    sampled = sampling_order(config, responses)
    if not sampled:
        return make_no_pair(example, "no responses", sampled)
    answer = (example.answer or "").strip()
    if not answer:
        return make_no_pair(example, "no answer of its own", sampled)
    different = [response for response in sampled if response.text.strip() != answer]
    if not different:
        return make_no_pair(example, "its own answer was sampled", sampled)
    # Not a sampled response, so it has no token ids; training renders its text.
    chosen = Response(id=f"{example.id}-answer", example_id=example.id, query=example.query, text=answer)
    rejected = random.Random(f"longreward contrast {config.seed} {example.id}").choice(different)
    return make_pair(example, chosen, rejected, method="contrast")
