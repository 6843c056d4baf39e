"""Judge labelled items, as scoring judges them: again to measure self-agreement, or with another judge.

The first round uses the judge's ordinary requests: what scoring has asked before is answered from the ledger, and
scoring reuses what is asked here. Further rounds have a namespace of their own in the ledger, so they are new
calls.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from longreward.human_labels.items import ReviewItem
from longreward.human_labels.sampling import sign
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.budget import Budget
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.check import isolated_config
from longreward.records import DIMENSIONS, Dimension, Extraction
from longreward.retrieval import open_retriever
from longreward.reward.completeness import extract, extraction_requests
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document
from longreward.reward.faithfulness import verify_statement
from longreward.reward.ratings import DimensionInput
from longreward.reward.scorer import DIMENSION_JUDGES
from longreward.utils.concurrency import gather
from longreward.utils.token_spans import open_tokenizer

Verdicts = dict[str, float | None]
"""The judge's verdict by item, on the scale of the labels; None: unscored."""


async def judge_rounds(
    items: Sequence[ReviewItem],
    judge: JudgeConfig,
    score: ScoreConfig,
    *,
    rounds: int,
    ledger: Path | None,
    budget: Budget | None = None,
    progress: Callable[[int, int], None] = lambda finished, total: None,
) -> tuple[str, list[Verdicts]]:
    """Return the judge's name and its verdicts of each round.

    `progress(finished, total)` counts verdicts of all rounds. Raises the JudgeError family, ConfigError and StateError
    like scoring.
    """
    results: list[Verdicts] = []
    name, total = "", rounds * len(items)
    for number in range(rounds):
        config = live_config(judge) if number == 0 else isolated_config(judge, f"labels.{number}")
        async with open_judge(config, ledger=ledger, budget=budget) as opened:
            async with _ItemJudge(opened, score, ledger=ledger) as item_judge:
                finished = number * len(items)

                async def verdict(item: ReviewItem, item_judge: _ItemJudge = item_judge) -> float | None:
                    nonlocal finished
                    value = await item_judge.verdict(item)
                    finished += 1
                    progress(finished, total)
                    return value

                values = await gather(verdict(item) for item in items)
            name = opened.name
        results.append({item.id: value for item, value in zip(items, values, strict=True)})
    return name, results


def live_config(judge: JudgeConfig) -> JudgeConfig:
    """Return the judge with live calls: a batch would take hours for a few items."""
    return judge.map_judges(lambda one: {"mode": "live"})


class _ItemJudge:
    """The judge of items, with the settings of scoring."""

    def __init__(self, judge: Judge, config: ScoreConfig, *, ledger: Path | None) -> None:
        self._judge = judge
        self._config = config
        self._prompts: PromptSet = config.load_prompts()
        self._tokenizer = open_tokenizer(config.tokenizer)
        self._retriever = open_retriever(config.retriever, ledger=ledger)
        self._documents: dict[str, Document] = {}
        self._extractions: dict[tuple[str, str], asyncio.Task[Extraction]] = {}

    async def __aenter__(self) -> "_ItemJudge":
        return self

    async def __aexit__(self, *exception: object) -> None:
        for task in self._extractions.values():
            task.cancel()
        await asyncio.gather(*self._extractions.values(), return_exceptions=True)
        await self._retriever.close()

    async def verdict(self, item: ReviewItem) -> float | None:
        """Return the verdict on the scale of the item's labels."""
        if item.kind == "support":
            assert item.statement is not None, "ReviewItem checks it"
            # The evidence that the reviewers saw, not a new retrieval: both rate the same.
            verified = await verify_statement(self._input(item, item.responses[0]), item.statement, item.evidence)
            return verified.statement.support
        scores = await gather(self._score(item, response) for response in item.responses)
        if None in scores:
            return None
        return scores[0] if item.kind == "score" else sign((scores[0] or 0.0) - (scores[1] or 0.0))

    async def _score(self, item: ReviewItem, response: str) -> float | None:
        dimensions: tuple[Dimension, ...] = DIMENSIONS if item.aspect == "overall" else (item.aspect,)
        verdicts = await gather(DIMENSION_JUDGES[name](self._input(item, response)) for name in dimensions)
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        return sum(scores) / len(scores) if len(scores) == len(dimensions) else None

    def _input(self, item: ReviewItem, response: str) -> DimensionInput:
        document = self._documents.get(item.context)
        if document is None:
            document = Document(item.context, self._config, self._tokenizer, self._retriever)
            self._documents[item.context] = document
        return DimensionInput(
            judge=self._judge,
            prompts=self._prompts,
            config=self._config,
            document=document,
            extraction=lambda: self._extraction(document, item),
            query=item.query,
            response=response,
        )

    async def _extraction(self, document: Document, item: ReviewItem) -> Extraction:
        key = (item.context, item.query)
        if key not in self._extractions:
            self._extractions[key] = asyncio.ensure_future(self._extract(document, item.query))
        return await asyncio.shield(self._extractions[key])

    async def _extract(self, document: Document, query: str) -> Extraction:
        requests = await extraction_requests(self._prompts, document, query=query)
        return await extract(self._judge, self._prompts, requests, example_id="labels", query=query)
