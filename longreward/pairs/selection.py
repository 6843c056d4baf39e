"""Which two of a prompt's responses make its pair, given what is known of their rewards.

>>> two_of([(8.0, 8.0), (5.0, 5.0), (8.0, 8.0), (7.0, 7.0)], "best_worst")
(0, 1)
>>> two_of([(8.0, 8.0), (5.0, 5.0), (8.0, 8.0), (7.0, 7.0)], "best_second")
(0, 3)
>>> two_of([(8.0, 8.0), (5.0, 5.0), (6.0, 6.0)], "best_worst", may_win=[False, True, True])
(2, 1)
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.judge.budget import BudgetConfig
from longreward.pairs.config import WITH_REWARDS, PairMethod, PairwiseConfig, SrmConfig
from longreward.records import (
    DIMENSIONS,
    Bounds,
    Dimension,
    Example,
    Method,
    PreferencePair,
    Response,
    ScoredResponse,
)
from longreward.reward.adaptive import contenders, only

Selection = Literal["best_worst", "best_second"]


def select_pair(
    bounds: Sequence[Bounds | None], selection: Selection, may_win: Sequence[bool] | None = None
) -> tuple[int, int] | None:
    """Places of the chosen and the rejected one; None where the bounds leave one of them open.

    The chosen one is the best of those that `may_win` (None: all); the rejected one is the worst of all. `best_second`
    takes the best of those below the chosen one: where several share its reward, another of them is no second. Where
    all tie, it is the last one, as for `best_worst`. Without a response that takes part and may win: None.
    """
    candidates = bounds if may_win is None else only(bounds, may_win)
    best = _known(candidates, contenders(candidates).best)
    if best is None:
        return None
    if selection == "best_second":
        reward = bounds[best]
        assert reward is not None, "its reward is known"
        # What may not win can lie above the best. Where its bounds do not tell, it is the highest here, and open.
        below = only(bounds, [known is not None and known[0] < reward[0] for known in bounds])
        if any(known is not None for known in below):
            second = _known(bounds, contenders(below).best)
            return None if second is None else (best, second)
    worst = _known(bounds, contenders(bounds).worst)
    return None if worst is None else (best, worst)


def _known(bounds: Sequence[Bounds | None], places: Sequence[int]) -> int | None:
    """The one place, where its reward is known."""
    if len(places) != 1:
        return None
    known = bounds[places[0]]
    return places[0] if known is not None and known[0] == known[1] else None


# Preference pairs: for LongReward the best response to a prompt against its worst (paper, section 3.2).
#
# A prompt gives no pair where fewer than `min_scored` of its responses have all scores that count, where best and worst
# tie, or where they are less than `min_margin` apart. Each such prompt is named with its reason.
#
# A truncated response, which reached the limit of tokens before it ended, is not chosen unless `choose_truncated` says
# so: DPO and its cross-entropy term would teach a text that breaks off. It may be rejected.
#
# Where scoring left responses out (`score.strategy: extremes`), their bounds say that they are neither best nor worst.
# They count for `min_scored`: that they were not asked does not make them unscored. With other weights or fewer
# responses
# than they were left out for, the bounds may not decide; such a prompt needs the full strategy.
#
# The other methods are in `baselines`; those that give rewards come here for the choice, with what they know of them.


NoPairReason = Literal[
    "no responses",
    "too few scored responses",
    "best and worst tie",
    "margin too small",
    "needs the full strategy",
    "all responses are truncated",
    "only truncated responses are better",
    "all responses are the same",
    "no answer of its own",
    "its own answer was sampled",
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
    """Which prompts give a pair, and which two of their responses it holds."""

    method: PairMethod = "longreward"
    """What tells the better response from the worse one: the judge's four scores (longreward), a short-context reward
    model (srm), the data's own answer before a sampled one (contrast), the judge comparing two at a time (pairwise), or
    chance (random); given: `prepare.pairs` are passed on. All but longreward look at no scores: `score.strategy: none`
    then spares them."""

    selection: Selection = "best_worst"
    """For longreward and srm: best against worst (the paper), or against the best of those below it."""

    seed: int = 0
    """Of what random and contrast draw."""

    min_scored: int = Field(default=5, ge=2)
    """Responses of a prompt that must have all scores that count (the published code: 5). Those that
    `score.strategy: extremes` did not need to ask about count too. pairwise and random count all responses; contrast
    needs one."""

    min_margin: float = Field(default=0.0, ge=0.0, le=10.0)
    """Least difference of the two rewards of longreward, on the scale of 0 to 10. A tie never makes a pair."""

    choose_truncated: bool = False
    """Whether a response that was truncated at `sample.max_new_tokens` may be the chosen one of a pair. It may be the
    rejected one in any case."""

    weights: Weights = Weights()
    """What each dimension counts for (paper: all the same); 0 leaves one out. Other weights ask the judge nothing
    after `score.strategy: full`."""

    responses: int | None = Field(default=None, ge=2)
    """Only the first so many responses of each prompt; None: all."""

    srm: SrmConfig = SrmConfig()
    """For pair.method: srm."""

    pairwise: PairwiseConfig = PairwiseConfig()
    """For pair.method: pairwise."""

    budget: BudgetConfig = BudgetConfig()
    """What the judge may be asked for by pairwise; at it, the stage stops cleanly."""

    @property
    def needs_scores(self) -> bool:
        """Whether the judge's scores are looked at."""
        return self.method == "longreward"

    @model_validator(mode="after")
    def _second_needs_rewards(self) -> Self:
        if self.selection == "best_second" and self.method not in WITH_REWARDS:
            raise ValueError(
                f"selection is best_second, and {self.method} gives no rewards to find a second by: leave it at "
                "best_worst"
            )
        return self


@dataclass(frozen=True)
class NoPair:
    """A prompt that gave no pair, and why."""

    example_id: str
    reason: NoPairReason
    responses: int
    scored: int
    """Responses that take part: with all scores that count, or not asked for them because they were not needed."""
    margin: float | None


Outcome = PreferencePair | NoPair


def make_pairs(config: PairConfig, examples: Iterable[Example], scored: Iterable[ScoredResponse]) -> Iterator[Outcome]:
    """One outcome an example, in the order of `examples`; holds the scored responses in memory, not the documents."""
    by_example: dict[str, list[ScoredResponse]] = {}
    for one in scored:
        by_example.setdefault(one.response.example_id, []).append(one)
    for example in examples:
        yield pair_by_scores(config, example, by_example.get(example.id, []))


def pair_by_scores(config: PairConfig, example: Example, scored: list[ScoredResponse]) -> Outcome:
    """Best against worst of one example's responses. Equal rewards keep their sampled order: a stable outcome."""
    by_number = sorted(scored, key=lambda one: one.response.number)[: config.responses]
    bounds = [one.bounds(config.weights.by_dimension()) for one in by_number]
    responses = [one.response for one in by_number]
    return select_by_reward(config, example, responses, bounds, method="longreward", min_margin=config.min_margin)


def sampled_order(config: PairConfig, responses: Iterable[Response]) -> list[Response]:
    """Those that take part, as they were sampled."""
    return sorted(responses, key=lambda response: response.number)[: config.responses]


def can_be_chosen(config: PairConfig, responses: Iterable[Response]) -> list[bool]:
    """Which responses may be the chosen one: all that were not truncated, or all."""
    return [config.choose_truncated or not response.truncated for response in responses]


def select_by_reward(
    config: PairConfig,
    example: Example,
    responses: Sequence[Response],
    bounds: Sequence[Bounds | None],
    *,
    method: Method,
    min_margin: float,
) -> Outcome:
    """The pair by what is known of the rewards, None for a response without; both in sampled order."""
    eligible = sum(known is not None for known in bounds)
    if eligible < config.min_scored:
        reason: NoPairReason = "too few scored responses" if responses else "no responses"
        return NoPair(example.id, reason, len(responses), eligible, None)
    may_win = can_be_chosen(config, responses)
    if not any(known is not None for known in only(bounds, may_win)):
        return NoPair(example.id, "all responses are truncated", len(responses), eligible, None)
    two = select_pair(bounds, config.selection, may_win)
    if two is None:
        return NoPair(example.id, "needs the full strategy", len(responses), eligible, None)
    best, worst = (known[0] for place in two if (known := bounds[place]) is not None)
    margin = best - worst
    if margin == 0 or margin < min_margin:
        reason = "best and worst tie" if margin == 0 else "margin too small"
        if margin == 0 and any(known is not None and known[0] > best for known in bounds):
            reason = "only truncated responses are better"
        return NoPair(example.id, reason, len(responses), eligible, margin)
    return PreferencePair(
        id=example.id,
        context=example.context,
        query=example.query,
        chosen=responses[two[0]],
        rejected=responses[two[1]],
        chosen_reward=best,
        rejected_reward=worst,
        method=method,
    )


def pair_without_rewards(example: Example, chosen: Response, rejected: Response, *, method: Method) -> PreferencePair:
    """A pair of a method that only says which one is better."""
    return PreferencePair(
        id=example.id,
        context=example.context,
        query=example.query,
        chosen=chosen,
        rejected=rejected,
        chosen_reward=None,
        rejected_reward=None,
        method=method,
    )


def pair_metrics(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Counts by outcome, the mean margin, both sides' mean length in characters (longer is not better) and truncated
    responses."""
    pairs: list[PreferencePair] = []
    reasons: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, PreferencePair):
            pairs.append(outcome)
        else:
            reasons[outcome.reason] += 1
    figures = {f"without_pair/{reason.replace(' ', '_')}": float(count) for reason, count in sorted(reasons.items())}
    figures |= {"pairs": float(len(pairs)), "without_pair": float(reasons.total())}
    if margins := [margin for pair in pairs if (margin := pair.margin) is not None]:
        figures["margin_mean"] = sum(margins) / len(margins)
    if pairs:
        figures["chosen_characters_mean"] = sum(len(p.chosen.text) for p in pairs) / len(pairs)
        figures["rejected_characters_mean"] = sum(len(p.rejected.text) for p in pairs) / len(pairs)
        figures["chosen_truncated"] = float(sum(pair.chosen.truncated for pair in pairs))
        figures["rejected_truncated"] = float(sum(pair.rejected.truncated for pair in pairs))
    return figures


def require_decided(outcomes: Iterable[Outcome]) -> None:
    """Raises ConfigError where bounds leave a response of the pair open: the other prompts alone would be a
    selection."""
    open_ = [one for one in outcomes if isinstance(one, NoPair) and one.reason == "needs the full strategy"]
    if open_:
        raise ConfigError(
            f"{len(open_)} prompts, such as {open_[0].example_id}, were scored with score.strategy: extremes, which is "
            "enough for equal weights, all responses and the best against the worst; with the present pair.weights, "
            "pair.responses and pair.selection, a response of theirs is open. Set score.strategy: full; the judge is "
            "then asked only what the ledger lacks"
        )
