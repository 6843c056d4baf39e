"""The margin of a pair by each judge of a panel (`judge.panel`), and whether the judges dispute the pair."""

from collections.abc import Sequence

from longreward.pairs.config import SelectionConfig
from longreward.pairs.outcomes import NoPair, Outcome
from longreward.records import PreferencePair, ScoredResponse
from longreward.reward.panel import member_rewards


def check_dispute(config: SelectionConfig, pair: PreferencePair, scored: Sequence[ScoredResponse]) -> Outcome:
    """Return the pair with the margin by each judge and whether it is disputed, or no pair if `config` excludes it.

    `scored` are the responses that the pair was selected from. With one judge the pair is unchanged.
    """
    by_id = {response.response.id: response for response in scored}
    chosen, rejected = (member_rewards(by_id[side.id], config.weights) for side in (pair.chosen, pair.rejected))
    margins = {judge: chosen[judge] - rejected[judge] for judge in chosen if judge in rejected}
    pair = pair.model_copy(update={"member_margins": margins})
    pair = pair.model_copy(update={"disputed": disagreement(pair) > config.max_disagreement})
    if not pair.disputed or config.disputed == "keep":
        return pair
    participants = sum(response.reward_bounds(config.weights) is not None for response in scored)
    return NoPair(pair.id, "judges disagree", len(scored), participants, pair.margin)


def disagreement(pair: PreferencePair) -> float:
    """Return how far apart the margins of the judges of a panel lie; 0 for one judge."""
    margins = pair.member_margins.values()
    return max(margins, default=0.0) - min(margins, default=0.0)


def panel_measures(pair: PreferencePair) -> dict[str, float]:
    """Return the disagreement about a pair, and 1 or 0 for disputed and for reversed; empty for one judge.

    In a reversed pair, a judge prefers the rejected response.
    """
    if not pair.member_margins:
        return {}
    return {
        "panel/rated": 1.0,
        "panel/disagreement": disagreement(pair),
        "panel/disputed": float(pair.disputed),
        "panel/reversed": float(min(pair.member_margins.values()) < 0),
    }
