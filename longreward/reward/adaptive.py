"""Adaptive scoring (`score.strategy: adaptive`): judge only as much as the best and the worst response need.

Every open verdict has bounds, and so has every reward. The loop in `score_adaptively` sends requests about the
responses that can still be the best or the worst until both are certain. With readable verdicts the pair equals the
pair of full scoring, including ties, for any margin, and whether or not truncated responses may be chosen: the best of
the responses that were not truncated becomes certain as well. An unscored response drops out, so that responses that
it had beaten are judged further. docs/decisions/2026-11-23-extremes.md has the measurements.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import RequestRefused
from longreward.judge import ParsedReply
from longreward.records import (
    DIMENSIONS,
    Bounds,
    Dimension,
    Response,
    ScoredResponse,
    Statement,
    Verdict,
    weighted_bounds,
)
from longreward.retrieval import Retriever
from longreward.reward.config import ScoreConfig
from longreward.reward.faithfulness import (
    faithfulness_verdict,
    list_statements,
    mean_support,
    verdict_without_statements,
    verify_statements,
)
from longreward.reward.panel import VerifiedStatement
from longreward.reward.ratings import DimensionInput, make_verdict
from longreward.reward.scorer import DIMENSION_JUDGES, Scorer
from longreward.utils.concurrency import gather

NOT_NEEDED = "not needed"
OPEN: Bounds = (0.0, 10.0)
# Expected values before the judge has said anything about the prompt.
PRIOR_SCORE, PRIOR_SUPPORT, PRIOR_SUPPORT_COUNT = 7.5, 0.8, 4
CAUTION = 0.7  # simulated: 0 costs 3 % more calls and saves a third of the rounds, 0.9 saves 0.3 % for a third more
ROUNDING = 1e-9
# Judged one after the other, after all the other dimensions. The statements come last: they take the most calls.
LATE_DIMENSIONS: tuple[Dimension, ...] = ("completeness", "faithfulness")
EARLY_DIMENSIONS = tuple(dimension for dimension in DIMENSIONS if dimension not in LATE_DIMENSIONS)


def open_scorer(config: ScoreConfig, *, retriever: Retriever | None = None, ledger: Path | None = None) -> Scorer:
    """Return the scorer for `config.strategy`; arguments as for `Scorer`."""
    scorer = AdaptiveScorer if config.strategy == "adaptive" else Scorer
    return scorer(config, retriever=retriever, ledger=ledger)


class AdaptiveScorer(Scorer):
    """A scorer that leaves verdicts open, with bounds, if the best and the worst response do not depend on them."""

    async def _score_responses(
        self, items: Mapping[str, DimensionInput], responses: Sequence[Response]
    ) -> list[ScoredResponse]:
        scorers = {text: IncrementalScorer(item) for text, item in items.items()}
        by_number = sorted(responses, key=lambda response: response.number)
        scored = await score_adaptively([scorers[response.text] for response in by_number], by_number)
        by_id = {result.response.id: result for result in scored}
        return [by_id[response.id] for response in responses]


async def score_adaptively(
    scorers: Sequence["IncrementalScorer"], responses: Sequence[Response]
) -> list[ScoredResponse]:
    """Advance the scorer of each response until best and worst are certain.

    `responses` are in the order that decides ties; responses with equal texts share a scorer. All requests of a round
    run at once, and the next round depends on the verdicts only, not on their timing.
    """
    distinct = list(dict.fromkeys(scorers))
    await gather(scorer.judge_early_dimensions() for scorer in distinct)
    while True:
        await _share_verified_statements(scorers, responses)
        # The expected completeness and support are means over the prompt's other responses, or the prior.
        early = [score for s in distinct for d in EARLY_DIMENSIONS if (score := s.score(d)) is not None]
        completeness = [score for s in distinct if (score := s.score("completeness")) is not None]
        supports = [support for s in distinct for support in s.supports] + [PRIOR_SUPPORT] * PRIOR_SUPPORT_COUNT
        expected = _mean(completeness or early or [PRIOR_SCORE]), _mean(supports)
        requests = next_requests(
            [scorer.state(*expected) for scorer in scorers], [not response.truncated for response in responses]
        )
        if not requests:
            break
        # A scorer that several responses share advances once, by the largest count.
        counts: dict[IncrementalScorer, int] = {}
        for index, count in requests.items():
            counts[scorers[index]] = max(counts.get(scorers[index], 0), count)
        await gather(scorer.advance(count) for scorer, count in counts.items())
    rewards = [bounds for scorer in scorers if (bounds := scorer.reward_bounds()) is not None]
    # The defaults apply if every response is unscored.
    worst, best = min((low for low, _ in rewards), default=0.0), max((high for _, high in rewards), default=10.0)
    return [
        ScoredResponse(response=response, verdicts=scorer.verdicts(worst=worst, best=best))
        for response, scorer in zip(responses, scorers, strict=True)
    ]


async def _share_verified_statements(scorers: Sequence["IncrementalScorer"], responses: Sequence[Response]) -> None:
    """Verify statements that another response makes too: their replies exist, so that this costs no call."""
    # By language, because the support prompt of another language is another request.
    verified: dict[str, set[str]] = {}
    for scorer in scorers:
        verified.setdefault(scorer.item.language, set()).update(scorer.verified_texts)
    bounds = [scorer.reward_bounds() for scorer in scorers]
    worst, best = extreme_candidates(bounds)
    _, best_untruncated = extreme_candidates(
        [None if response.truncated else value for value, response in zip(bounds, responses, strict=True)]
    )
    # The others' rewards stay open: each verified statement would narrow bounds that decide nothing.
    candidates = dict.fromkeys(scorers[index] for index in sorted({*worst, *best, *best_untruncated}))
    await gather(scorer.verify(verified[scorer.item.language]) for scorer in candidates)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class IncrementalScorer:
    """Judges one text step by step: rating dimensions, completeness, list of statements, supports."""

    def __init__(self, item: DimensionInput) -> None:
        self.item = item
        self._verdicts: dict[Dimension, Verdict] = {}
        self._listing: ParsedReply[tuple[str, ...]] | None = None
        self._statements: tuple[str, ...] = ()
        self._verified: dict[int, VerifiedStatement] = {}  # by index in `_statements`

    async def judge_early_dimensions(self) -> None:
        """Judge the dimensions that take one call each, at once."""
        verdicts = await gather(DIMENSION_JUDGES[dimension](self.item) for dimension in EARLY_DIMENSIONS)
        self._verdicts |= zip(EARLY_DIMENSIONS, verdicts, strict=True)

    async def advance(self, count: int) -> None:
        """Send the next request; if it is about supports, verify the next `count` statements."""
        if "completeness" not in self._verdicts:
            self._verdicts["completeness"] = await DIMENSION_JUDGES["completeness"](self.item)
        elif self._listing is None:
            self._listing = await list_statements(self.item)
            self._statements = self._listing.value or ()
            if not self._statements:
                self._verdicts["faithfulness"] = verdict_without_statements(self.item, self._listing)
        else:
            await self.verify(list(dict.fromkeys(self._statements[index] for index in self._unverified))[:count])

    async def verify(self, statements: Collection[str]) -> None:
        """Verify the statements of this text that are in `statements` and not verified yet."""
        # A response may make the same statement twice: both get the verdict of one request.
        indices = [index for index in self._unverified if self._statements[index] in statements]
        if not indices or self._listing is None:
            return
        try:
            verified = await verify_statements(self.item, [self._statements[index] for index in indices])
        except RequestRefused as refusal:  # an embedding model declined a statement
            self._verdicts["faithfulness"] = faithfulness_verdict(
                self.item, self._listing, list(self._verified.values()), score=None, reason=str(refusal)
            )
            return
        self._verified |= zip(indices, verified, strict=True)
        # One unreadable support leaves the dimension unscored, so the other statements need no request.
        if not self._unverified or any(result.statement.support is None for result in verified):
            results = [result.statement for result in self._verified.values()]
            score, reason = mean_support(results, total=len(self._statements))
            self._verdicts["faithfulness"] = self._faithfulness(score, reason, open_reason=NOT_NEEDED)

    def _faithfulness(self, score: float | None, reason: str | None, *, open_reason: str) -> Verdict:
        """Return the verdict on the statements; those that are not verified get `open_reason`."""
        if self._listing is None:
            return make_verdict(self.item, [], score=score, reason=reason, prompt_hashes=())
        statements = [
            self._verified[index].statement
            if index in self._verified
            else Statement(text=text, support=None, reason=open_reason)
            for index, text in enumerate(self._statements)
        ]
        verified = list(self._verified.values())
        return faithfulness_verdict(
            self.item, self._listing, verified, score=score, reason=reason, statements=statements
        )

    @property
    def _unverified(self) -> list[int]:
        return [index for index in range(len(self._statements)) if index not in self._verified]

    @property
    def verified_texts(self) -> set[str]:
        """The statements whose support the judge has rated."""
        return {result.statement.text for result in self._verified.values()}

    @property
    def supports(self) -> list[float]:
        """The readable supports so far."""
        supports = (result.statement.support for result in self._verified.values())
        return [support for support in supports if support is not None]

    def score(self, dimension: Dimension) -> float | None:
        """Return the score of a dimension that is judged."""
        verdict = self._verdicts.get(dimension)
        return verdict.score if verdict is not None else None

    def score_bounds(self, dimension: Dimension) -> Bounds | None:
        """Return the bounds of a score so far; None if the dimension is unscored.

        Each of k statements contributes 1/k of the faithfulness: a verified one its support, an open one 0 to 1.
        """
        if dimension in self._verdicts:
            return self._verdicts[dimension].score_bounds
        if dimension != "faithfulness" or not self._statements:
            return OPEN
        total, count = sum(self.supports), len(self._statements)
        return 10 * total / count, 10 * (total + len(self._unverified)) / count

    def reward_bounds(self) -> Bounds | None:
        """Return the bounds of the reward so far; None if the response is unscored."""
        return weighted_bounds({dimension: self.score_bounds(dimension) for dimension in DIMENSIONS})

    def state(self, completeness: float, support: float) -> "ScoringState | None":
        """Return the state, given the expected completeness and support; None if the response is unscored."""
        bounds = self.reward_bounds()
        if bounds is None:
            return None
        count, unverified = len(self._statements), len(self._unverified)
        faithfulness = (sum(self.supports) + support * unverified) / count if count else support
        expected: dict[Dimension, float] = {"completeness": completeness, "faithfulness": 10 * faithfulness}
        scores = [expected[d] if (score := self.score(d)) is None else score for d in DIMENSIONS]
        # Supports are the last requests: they can be sent in any number, all others one at a time.
        supports_are_next = "completeness" in self._verdicts and self._listing is not None
        return ScoringState(
            bounds,
            expected=_mean(scores),
            open_requests=unverified if supports_are_next else 1,
            step=10 / count / len(DIMENSIONS) if supports_are_next and count else None,
        )

    def verdicts(self, *, worst: float, best: float) -> dict[Dimension, Verdict]:
        """Return all verdicts; an open one has bounds and the reason why the best and worst reward do not need it."""
        bounds = self.reward_bounds()
        if bounds is None:
            unscored = next(dimension for dimension in DIMENSIONS if self.score_bounds(dimension) is None)
            reason = f"{NOT_NEEDED}: {unscored} is unscored"
        else:
            reason = (
                f"{NOT_NEEDED}: the reward lies within {bounds[0]:.2f} to {bounds[1]:.2f}, "
                f"between the worst, {worst:.2f}, and the best, {best:.2f}"
            )
        open_verdicts = {d: Verdict(score=None, bounds=OPEN, reason=reason) for d in DIMENSIONS}
        faithfulness = self._faithfulness(None, reason, open_reason=reason)
        open_verdicts["faithfulness"] = faithfulness.model_copy(update={"bounds": self.score_bounds("faithfulness")})
        return open_verdicts | self._verdicts


@dataclass(frozen=True)
class ScoringState:
    """What is known of a response's reward, and which requests can be sent about it."""

    bounds: Bounds
    expected: float
    """The expected reward, within the bounds. It affects the order of requests only, never the pair."""
    open_requests: int
    """Requests that can be sent now: one rating or listing, or the supports of all unverified statements."""
    step: float | None = None
    """The most that one support changes the reward; None if the next request is a rating or a listing."""


def next_requests(states: Sequence[ScoringState | None], untruncated: Sequence[bool]) -> Mapping[int, int]:
    """Return the number of requests to send about each response in the next round; empty if the pair is certain.

    `states` are in response order, None for an unscored response. The best of the `untruncated` responses becomes
    certain too, because `pair.choose_truncated` decides later which response is chosen.

    The response with the highest upper bound must be judged further before the best can be certain, and the one with
    the lowest lower bound before the worst can be. Only these two advance if the next request is a rating or a listing.
    A support changes the reward little, so several are requested at once: as many as the response needs to drop out of
    the candidates if its supports are unfavourable and the other responses end near their expected rewards. This costs
    about 1 % more calls and saves three rounds of four.
    """
    untruncated_states = [state if keep else None for state, keep in zip(states, untruncated, strict=True)]
    requests: dict[int, int] = {}
    for group, side in ((states, 1), (states, 0), (untruncated_states, 1)):  # side: index of the bound
        candidates = extreme_candidates([None if state is None else state.bounds for state in group])[side]
        sign = 1 if side else -1
        # A cautious forecast of the extreme reward: each reward ends between its expected value and its bound.
        forecasts = [s.expected + CAUTION * (s.bounds[side] - s.expected) for s in group if s is not None]
        threshold = max((sign * forecast for forecast in forecasts), default=0.0)
        candidate_states = [(index, state) for index in candidates if (state := states[index]) and state.open_requests]
        # The first candidate has the extreme bound and must advance in any case. Others advance only with supports, and
        # only as far as they stand out from the cautious forecast.
        for rank, (index, state) in enumerate(candidate_states):
            excess = sign * state.bounds[side] - threshold
            if rank and (state.step is None or excess < 0):
                continue
            count = 1 if state.step is None else max(1, math.ceil(excess / state.step - ROUNDING))
            requests[index] = max(requests.get(index, 0), min(count, state.open_requests))
    return requests


def extreme_candidates(bounds: Sequence[Bounds | None]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the responses that can be the worst (lowest lower bound first) and the best (highest
    upper bound first), given bounds of their rewards (None: takes no part).

    Of equal rewards the first is the best and the last the worst, as in pair selection. The result is exact: some
    rewards within the bounds make a candidate the best (worst), and none do so for any other response. So the pair is
    certain when the reward of every candidate is known.

    >>> extreme_candidates([(8.0, 8.0), (5.0, 7.0), (4.0, 4.0), (6.0, 9.0)])
    ((2,), (3, 0))
    """
    # The negative index orders equal rewards: the first response is the best of them, the last one the worst.
    lows = sorted((value[0], -index) for index, value in enumerate(bounds) if value is not None)
    highs = sorted((value[1], -index) for index, value in enumerate(bounds) if value is not None)
    if not lows:
        return (), ()
    worst = tuple(-index for low, index in lows if (low, index) <= highs[0])
    best = tuple(-index for high, index in reversed(highs) if (high, index) >= lows[-1])
    return worst, best


def count_saved_requests(responses: Sequence[ScoredResponse]) -> int:
    """Return how many requests about one example adaptive scoring did not send; equal requests count once.

    The supports of statements that were never listed are not known and do not count.
    """
    saved = 0
    verified: set[str] = set()
    unverified: set[str] = set()
    # Equal texts share their requests, so each text counts once.
    for scored in {scored.response.text: scored for scored in responses}.values():
        saved += sum(verdict.bounds is not None and not verdict.statements for verdict in scored.verdicts.values())
        for statement in scored.verdicts["faithfulness"].statements:
            # An unreadable support has another reason: its request was sent.
            is_open = statement.support is None and (statement.reason or "").startswith(NOT_NEEDED)
            (unverified if is_open else verified).add(statement.text)
    return saved + len(unverified - verified)
