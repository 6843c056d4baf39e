"""Preference pairs: the best response to a prompt against its worst (paper, section 3.2).

A prompt gives no pair where fewer than `min_scored` of its responses have all scores that count, where best and worst
tie, or where they are less than `min_margin` apart. Each such prompt is named with its reason.

Where scoring left responses out (`score.strategy: extremes`), their bounds say that they are neither best nor worst.
They count for `min_scored`: that they were not asked does not make them unscored. With other weights or fewer responses
than they were left out for, the bounds may not decide; such a prompt needs the full strategy.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.contenders import contenders
from longreward.errors import ConfigError
from longreward.records import DIMENSIONS, Dimension, Example, PreferencePair, ScoredResponse

NoPairReason = Literal[
    "no responses", "too few scored responses", "best and worst tie", "margin too small", "needs the full strategy"
]


class Weights(Config):
    """What each dimension counts for in the reward; equal weights are the paper's (section 3.1), 0 leaves one out."""

    helpfulness: float = Field(default=1.0, ge=0, le=1000)
    """Weight of helpfulness."""
    logicality: float = Field(default=1.0, ge=0, le=1000)
    """Weight of logicality."""
    faithfulness: float = Field(default=1.0, ge=0, le=1000)
    """Weight of faithfulness."""
    completeness: float = Field(default=1.0, ge=0, le=1000)
    """Weight of completeness."""

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if not any(self.by_dimension().values()):
            raise ValueError("all weights are 0; give at least one dimension a weight")
        return self

    def by_dimension(self) -> dict[Dimension, float]:
        """The weights as a table."""
        return {dimension: getattr(self, dimension) for dimension in DIMENSIONS}


class PairConfig(Config):
    """Which prompts give a pair."""

    min_scored: int = Field(default=5, ge=2)
    """Responses of a prompt that must have all scores that count (the published code: 5). Those that
    `score.strategy: extremes` did not need to ask about count too."""

    min_margin: float = Field(default=0.0, ge=0.0, le=10.0)
    """Least difference of the two rewards, on the scale of 0 to 10. A tie never makes a pair."""

    weights: Weights = Weights()
    """What each dimension counts for (paper: all the same); 0 leaves one out. Other weights ask the judge nothing
    after `score.strategy: full`."""

    responses: int | None = Field(default=None, ge=2)
    """Only the first so many responses of each prompt; None: all."""


@dataclass(frozen=True)
class WithoutPair:
    """A prompt that gave no pair, and why."""

    example_id: str
    reason: NoPairReason
    responses: int
    scored: int
    """Responses that take part: with all scores that count, or not asked for them because they were not needed."""
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
    in_order = sorted(scored, key=lambda one: one.response.number)[: config.responses]
    bounds = [one.bounds(config.weights.by_dimension()) for one in in_order]
    eligible = sum(known is not None for known in bounds)
    if eligible < config.min_scored:
        reason: NoPairReason = "too few scored responses" if in_order else "no responses"
        return WithoutPair(example.id, reason, len(in_order), eligible, None)
    contest = contenders(bounds)
    rewards = [bounds[place] for place in (*contest.best, *contest.worst)]
    if len(rewards) > 2 or any(known is None or known[0] != known[1] for known in rewards):
        return WithoutPair(example.id, "needs the full strategy", len(in_order), eligible, None)
    best, worst = (known[0] for known in rewards if known is not None)
    margin = best - worst
    if margin == 0 or margin < config.min_margin:
        reason = "best and worst tie" if margin == 0 else "margin too small"
        return WithoutPair(example.id, reason, len(in_order), eligible, margin)
    return PreferencePair(
        id=example.id,
        context=example.context,
        query=example.query,
        chosen=in_order[contest.best[0]].response,
        rejected=in_order[contest.worst[0]].response,
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


def check_decided(outcomes: Iterable[PreferencePair | WithoutPair]) -> None:
    """Raises ConfigError where bounds leave a best or worst open: the other prompts alone would be a selection."""
    open_ = [one for one in outcomes if isinstance(one, WithoutPair) and one.reason == "needs the full strategy"]
    if open_:
        raise ConfigError(
            f"{len(open_)} prompts, such as {open_[0].example_id}, were scored with score.strategy: extremes, which is "
            "enough for equal weights and all responses; with the present pair.weights and pair.responses, their best "
            "or worst is open. Set score.strategy: full; the judge is then asked only what the ledger lacks"
        )
