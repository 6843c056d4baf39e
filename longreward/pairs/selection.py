"""Select a preference pair: the response with the highest reward against the one with the lowest (paper, section 3.2).

A prompt gives no pair if fewer than `min_scored` of its responses are scored, if best and worst tie, or if their
rewards differ by less than `min_margin`. Every prompt without a pair is recorded with its reason.

A truncated response is chosen only if `choose_truncated` is set: DPO and its cross-entropy term would teach the policy
to stop in mid-sentence. It may be rejected.

Rewards come as bounds. With adaptive scoring, some responses have an open reward: their bounds show that they are
neither best nor worst, and they count for `min_scored`. With other weights or fewer responses than adaptive scoring
assumed, an open response may be in the pair; such a prompt has to be scored in full.
"""

from collections.abc import Iterable, Iterator, Sequence

from longreward.pairs.config import Selection, SelectionConfig
from longreward.pairs.member_margins import check_dispute
from longreward.pairs.outcomes import NoPair, NoPairReason, Outcome, can_be_chosen, make_pair
from longreward.records import Bounds, Example, Response, ScoredResponse


def make_pairs(
    config: SelectionConfig, examples: Iterable[Example], scored: Iterable[ScoredResponse]
) -> Iterator[Outcome]:
    """Yield one outcome per example; the scored responses are held in memory."""
    by_example: dict[str, list[ScoredResponse]] = {}
    for response in scored:
        by_example.setdefault(response.response.example_id, []).append(response)
    for example in examples:
        yield pair_by_scores(config, example, by_example.get(example.id, []))


def pair_by_scores(config: SelectionConfig, example: Example, scored: Sequence[ScoredResponse]) -> Outcome:
    """Select the pair by the rewards of LongReward."""
    by_number = sorted(scored, key=lambda scored: scored.response.number)[: config.responses]
    rewards = [scored.reward_bounds(config.weights) for scored in by_number]
    responses = [scored.response for scored in by_number]
    outcome = select_by_reward(config, example, responses, rewards, method="longreward", min_margin=config.min_margin)
    return outcome if isinstance(outcome, NoPair) else check_dispute(config, outcome, by_number)


def select_by_reward(
    config: SelectionConfig,
    example: Example,
    responses: Sequence[Response],
    rewards: Sequence[Bounds | None],
    *,
    method: str,
    min_margin: float,
) -> Outcome:
    """Select the pair by bounds of the rewards (None: unscored); responses are in sampling order."""
    scored = sum(reward is not None for reward in rewards)

    def no_pair(reason: NoPairReason, margin: float | None = None) -> NoPair:
        return NoPair(example.id, reason, len(responses), scored, margin)

    if scored < config.min_scored:
        return no_pair("too few scored responses" if responses else "no responses")
    choosable = can_be_chosen(config, responses)
    if not any(reward is not None for reward, may in zip(rewards, choosable, strict=True) if may):
        return no_pair("all responses are truncated")
    # The rejected response may be truncated, the chosen one not.
    indices = select_pair(rewards, config.selection, choosable)
    if indices is None:
        return no_pair("needs the full strategy")
    chosen_reward, rejected_reward = (reward[0] for index in indices if (reward := rewards[index]) is not None)
    margin = chosen_reward - rejected_reward
    if margin == 0:
        # The chosen response ties with the worst only if all complete responses do.
        has_better = any(reward is not None and reward[0] > chosen_reward for reward in rewards)
        return no_pair("only truncated responses are better" if has_better else "best and worst tie", margin)
    if margin < min_margin:
        return no_pair("margin too small", margin)
    chosen, rejected = (responses[index] for index in indices)
    return make_pair(example, chosen, rejected, method=method, rewards=(chosen_reward, rejected_reward))


def select_pair(
    rewards: Sequence[Bounds | None], selection: Selection, choosable: Sequence[bool] | None = None
) -> tuple[int, int] | None:
    """Return the indices of the chosen and the rejected response; None if open rewards leave one of them uncertain.

    The chosen response is the best of the `choosable` ones (None: all), the rejected one the worst of all. Of equal
    rewards the first is the best and the last the worst, as in the published code. `best_second` rejects the best
    response with a lower reward than the chosen one; if there is none, the worst.

    >>> select_pair([(8.0, 8.0), (5.0, 5.0), (8.0, 8.0), (7.0, 7.0)], "best_worst")
    (0, 1)
    >>> select_pair([(8.0, 8.0), (5.0, 5.0), (8.0, 8.0), (7.0, 7.0)], "best_second")
    (0, 3)
    >>> select_pair([(8.0, 8.0), (5.0, 5.0), (6.0, 6.0)], "best_worst", choosable=[False, True, True])
    (2, 1)
    """
    scored = {index: reward for index, reward in enumerate(rewards) if reward is not None}
    best = _best({index: reward for index, reward in scored.items() if choosable is None or choosable[index]})
    if best is None:
        return None
    if selection == "best_second":
        # An open reward whose lower bound is below the chosen one's may end below it, so it takes part.
        lower = {index: reward for index, reward in scored.items() if reward[0] < scored[best][0]}
        if lower:
            second = _best(lower)
            return None if second is None else (best, second)
    worst = min(scored, key=lambda index: (scored[index][0], -index))
    return (best, worst) if _is_exact(scored[worst]) else None


def _best(scored: dict[int, Bounds]) -> int | None:
    """Return the index of the highest reward; None if there is none, or if an open reward may exceed it."""
    best = max(scored, key=lambda index: (scored[index][1], -index), default=None)
    return best if best is not None and _is_exact(scored[best]) else None


def _is_exact(reward: Bounds) -> bool:
    return reward[0] == reward[1]
