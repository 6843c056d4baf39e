"""One response's way to its four verdicts, a step at a time: the cheap dimensions first, the statements last."""

import asyncio
from collections.abc import Collection

from longreward.judge import Judge
from longreward.judge.prompts import PromptSet
from longreward.records import DIMENSIONS, Bounds, Dimension, Extraction, Verdict, reward_bounds
from longreward.reward.adaptive_schedule import ScoringState
from longreward.reward.completeness import judge_completeness
from longreward.reward.faithfulness import NOT_NEEDED, Faithfulness
from longreward.reward.helpfulness import judge_helpfulness
from longreward.reward.logicality import judge_logicality
from longreward.utils.concurrency import gather


class IncrementalScorer:
    """The verdicts on one text, which several responses may have."""

    def __init__(
        self,
        judge: Judge,
        prompts: PromptSet,
        extraction: "asyncio.Future[Extraction]",
        faithfulness: Faithfulness,
        *,
        query: str,
        response: str,
    ) -> None:
        self._judge, self._prompts, self._extraction = judge, prompts, extraction
        self._query, self._response = query, response
        self._verdicts: dict[Dimension, Verdict] = {}
        self.faithfulness = faithfulness

    async def rate(self) -> None:
        """Two calls at once."""
        helpfulness, logicality = await gather(
            [
                judge_helpfulness(self._judge, self._prompts, query=self._query, response=self._response),
                judge_logicality(self._judge, self._prompts, query=self._query, response=self._response),
            ]
        )
        self._verdicts |= {"helpfulness": helpfulness, "logicality": logicality}

    async def go_on(self, count: int) -> None:
        """The next question; where that is a support, the next `count` statements."""
        if "completeness" not in self._verdicts:
            extraction = await asyncio.shield(self._extraction)  # one response's end must not end it for the others
            self._verdicts["completeness"] = await judge_completeness(
                self._judge, self._prompts, extraction, query=self._query, response=self._response
            )
        elif not self.faithfulness.listed:
            await self.faithfulness.list_statements()
        else:
            texts = self.faithfulness.texts
            await self.verify(list(dict.fromkeys(texts[place] for place in self.faithfulness.open))[:count])
        self._settle()

    async def verify(self, statements: Collection[str]) -> None:
        """One call for each of these statements that the text makes, as often as it may; none for one verified."""
        texts = self.faithfulness.texts
        await self.faithfulness.verify([place for place in self.faithfulness.open if texts[place] in statements])
        self._settle()

    def known(self, dimension: Dimension) -> Bounds | None:
        """The score's bounds so far; None where there is no score to be had."""
        if found := self._verdicts.get(dimension):
            return found.known
        return self.faithfulness.bounds if dimension == "faithfulness" else (0.0, 10.0)

    def score(self, dimension: Dimension) -> float | None:
        """The score where the judge has given it."""
        found = self._verdicts.get(dimension)
        return found.score if found else None

    def bounds(self) -> Bounds | None:
        """The reward's bounds so far; None for a response that is unscored."""
        return reward_bounds({dimension: self.known(dimension) for dimension in DIMENSIONS})

    def standing(self, *, completeness: float, support: float) -> ScoringState | None:
        """None for a response that is unscored; the figures are what to expect of scores and supports still open."""
        bounds = self.bounds()
        if bounds is None:
            return None
        texts, waiting = self.faithfulness.texts, len(self.faithfulness.open)
        faithfulness = (sum(self.faithfulness.supports) + support * waiting) / len(texts) if texts else support
        guess = {"completeness": completeness, "faithfulness": 10 * faithfulness}
        scores = [guess[d] if (score := self.score(d)) is None else score for d in DIMENSIONS]
        whole = "completeness" not in self._verdicts or not self.faithfulness.listed
        return ScoringState(
            bounds,
            expected=sum(scores) / len(DIMENSIONS),
            waiting=1 if whole else waiting,
            step=None if whole or not texts else 10 / len(texts) / len(DIMENSIONS),
        )

    def verdicts(self, unasked: str) -> dict[Dimension, Verdict]:
        """All four; one that the judge was not asked for, or not to the end, has bounds and the reason `unasked`."""
        made: dict[Dimension, Verdict] = {"faithfulness": self.faithfulness.verdict(unasked), **self._verdicts}
        open_ = Verdict(score=None, bounds=(0.0, 10.0), reason=unasked)
        return {dimension: made.get(dimension, open_) for dimension in DIMENSIONS}

    def _settle(self) -> None:
        if self.faithfulness.settled:
            self._verdicts["faithfulness"] = self.faithfulness.verdict(NOT_NEEDED)
