"""Preference pairs: the best response to a prompt against its worst (paper, section 3.2).

A prompt gives no pair where fewer than `min_scored` of its responses have all four scores, where best and worst tie, or
where they are less than `min_margin` apart. Each such prompt is named with its reason.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from longreward.config import Config
from longreward.records import Example, PreferencePair, ScoredResponse

NoPairReason = Literal["no responses", "too few scored responses", "best and worst tie", "margin too small"]


class PairConfig(Config):
    """Which prompts give a pair."""

    min_scored: int = Field(default=5, ge=2)
    """Responses of a prompt that must have all four scores (the published code: 5)."""

    min_margin: float = Field(default=0.0, ge=0.0, le=10.0)
    """Least difference of the two rewards, on the scale of 0 to 10. A tie never makes a pair."""


@dataclass(frozen=True)
class WithoutPair:
    """A prompt that gave no pair, and why."""

    example_id: str
    reason: NoPairReason
    responses: int
    scored: int
    margin: float | None


def make_pairs(
    config: PairConfig, examples: Iterable[Example], scored: Iterable[ScoredResponse]
) -> Iterator[PreferencePair | WithoutPair]:
    """One outcome an example, in the order of `examples`; holds the scored responses in memory, not the documents."""
    by_example: dict[str, list[ScoredResponse]] = {}
    for one in scored:
        by_example.setdefault(one.response.example_id, []).append(one)
    for example in examples:
        yield pair(config, example, by_example.get(example.id, []))


def pair(config: PairConfig, example: Example, scored: list[ScoredResponse]) -> PreferencePair | WithoutPair:
    """Best against worst of one example's responses. Equal rewards keep their sampled order: a stable outcome."""
    in_order = sorted(scored, key=_sample_number)
    ranked = sorted(
        ((one.reward, one.response) for one in in_order if one.reward is not None), key=lambda item: -item[0]
    )
    if len(ranked) < config.min_scored:
        reason: NoPairReason = "too few scored responses" if scored else "no responses"
        return WithoutPair(example.id, reason, len(scored), len(ranked), None)
    (best, chosen), (worst, rejected) = ranked[0], ranked[-1]
    margin = best - worst
    if margin == 0 or margin < config.min_margin:
        reason = "best and worst tie" if margin == 0 else "margin too small"
        return WithoutPair(example.id, reason, len(scored), len(ranked), margin)
    return PreferencePair(
        id=example.id,
        context=example.context,
        query=example.query,
        chosen=chosen,
        rejected=rejected,
        chosen_reward=best,
        rejected_reward=worst,
    )


def pair_figures(outcomes: Iterable[PreferencePair | WithoutPair]) -> dict[str, float]:
    """Counts by outcome, the mean margin, and both sides' mean length in characters (longer is not better)."""
    pairs: list[PreferencePair] = []
    reasons: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, PreferencePair):
            pairs.append(outcome)
        else:
            reasons[outcome.reason] += 1
    figures = {f"without_pair/{reason.replace(' ', '_')}": float(count) for reason, count in sorted(reasons.items())}
    figures |= {"pairs": float(len(pairs)), "without_pair": float(reasons.total())}
    if pairs:
        figures["margin_mean"] = sum(p.chosen_reward - p.rejected_reward for p in pairs) / len(pairs)
        figures["chosen_characters_mean"] = sum(len(p.chosen.text) for p in pairs) / len(pairs)
        figures["rejected_characters_mean"] = sum(len(p.rejected.text) for p in pairs) / len(pairs)
    return figures


def _sample_number(scored: ScoredResponse) -> int:
    return int(scored.response.id.rpartition("-")[2])
