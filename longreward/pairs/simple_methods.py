"""Pair methods that need only the sampled responses of an example."""

import random
import re
from collections import Counter
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
from longreward.pairs.selection import select_by_reward
from longreward.records import Example, Response


def contrast_pair(config: SelectionConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """Choose the reference answer, from a stronger model, and reject a sampled response (paper, section 4.1).

    The rejected response differs from the answer; `config.seed` and the example's id select it.
    """
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


def random_pair(config: SelectionConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """Select two different texts by `config.seed` and the example's id: a control without information on quality."""
    sampled = sampling_order(config, responses)
    if (reason := reason_without_pair(config, sampled)) is not None:
        return make_no_pair(example, reason, sampled)
    # A stream per example, so that the result does not depend on the other examples or their order.
    shuffled = random.Random(f"longreward random {config.seed} {example.id}").sample(sampled, len(sampled))
    choosable = can_be_chosen(config, shuffled)
    chosen = next(response for response, may in zip(shuffled, choosable, strict=True) if may)
    rejected = next(response for response in shuffled if response.text != chosen.text)
    return make_pair(example, chosen, rejected, method="random")


def consensus_pair(config: SelectionConfig, example: Example, responses: Iterable[Response]) -> Outcome:
    """Choose the response that agrees most with the others and reject the one that agrees least, without a judge.

    The reward is the mean F1 of its words against each other response: minimum Bayes risk decoding (Kumar and Byrne,
    2004) over the samples, a form of self-consistency for free text.
    """
    sampled = sampling_order(config, responses)
    if (reason := reason_without_pair(config, sampled)) is not None:
        return make_no_pair(example, reason, sampled)
    words = [Counter(re.findall(r"\w+", response.text.lower())) for response in sampled]
    rewards = []
    for index, own in enumerate(words):
        agreement = sum(_word_f1(own, other) for position, other in enumerate(words) if position != index)
        rewards.append((agreement / (len(words) - 1),) * 2)
    return select_by_reward(config, example, sampled, rewards, method="consensus", min_margin=0.0)


def _word_f1(first: Counter[str], second: Counter[str]) -> float:
    """Return the F1 of two texts' words, 0 if one of them has none."""
    return 2 * (first & second).total() / max(first.total() + second.total(), 1)
