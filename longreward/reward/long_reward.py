"""The public Python API of the reward.

>>> from longreward import LongReward
>>> scored = LongReward().score(
...     context="Keld was founded in 1905 by Ann Lee.", query="Who founded Keld?", response="Ann Lee founded Keld."
... )
>>> scored.complete
True
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from longreward.errors import ConfigError
from longreward.judge import ChatModel, Judge, JudgeConfig, open_judge
from longreward.judge.budget import Budget
from longreward.judge.ledger import Ledger
from longreward.records import Example, Response, RubricItem, ScoredResponse
from longreward.retrieval import Bm25Retriever, check_key, open_retriever
from longreward.reward.adaptive import open_scorer
from longreward.reward.concurrent_scoring import score_examples
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import ScoredExample, Scorer

T = TypeVar("T")


class LongReward:
    """Scores responses to queries about long documents; by default with the offline judge, which needs no setup.

    `judge`: the configuration of a judge, or a ChatModel of your own (you close it; no budget applies). `ledger`: file
    for judge replies and embeddings, so that no request is repeated in a later call; without it every call is
    independent. `budget`: shared by all calls, which must run one after another or in one event loop; without it
    `config.budget` applies to each call.
    """

    def __init__(
        self,
        judge: JudgeConfig | ChatModel | None = None,
        config: ScoreConfig | None = None,
        ledger: Path | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._judge = JudgeConfig() if judge is None else judge
        self._config = config or ScoreConfig()
        check_key(self._config.retriever)
        # BM25 has no connections, so this scorer can be shared by calls in different event loops.
        self._scorer = open_scorer(self._config, retriever=Bm25Retriever(self._config.retriever))
        self._ledger = ledger
        self._budget = budget

    def score(self, *, context: str, query: str, response: str, rubric: Sequence[RubricItem] = ()) -> ScoredResponse:
        """Score one response. In a running event loop this blocks the loop; await `ascore` there."""
        return run_sync(self.ascore(context=context, query=query, response=response, rubric=rubric))

    async def ascore(
        self, *, context: str, query: str, response: str, rubric: Sequence[RubricItem] = ()
    ) -> ScoredResponse:
        """Score one response; without `rubric`, the judge writes it where that dimension is in use."""
        example = Example(id="0", document_id="0", context=context, query=query, rubric=tuple(rubric))
        scored = await self.ascore_responses(example, [Response(id="0-0", example_id="0", query=query, text=response)])
        return scored.responses[0]

    def score_responses(self, example: Example, responses: Sequence[Response | str]) -> ScoredExample:
        """Score several responses to one example, whose document is processed once. Blocks like `score`."""
        return run_sync(self.ascore_responses(example, responses))

    async def ascore_responses(self, example: Example, responses: Sequence[Response | str]) -> ScoredExample:
        """Score several responses to one example, whose document is processed once."""
        async with self._open_judge() as judge, self._open_scorer() as scorer:
            return await scorer.score(judge, example, to_records(example, responses))

    async def ascore_examples(
        self, examples: Iterable[tuple[Example, Sequence[Response | str]]]
    ) -> list[ScoredExample]:
        """Score many examples with their responses, `config.prompts_at_once` concurrently; results in input order."""
        items = ((example, to_records(example, responses)) for example, responses in examples)
        async with self._open_judge() as judge, self._open_scorer() as scorer:
            return [scored async for scored in score_examples(judge, scorer, items)]

    def check_immediate(self, purpose: str) -> None:
        """Raise ConfigError if replies would take hours (batches) or some responses would get no reward (adaptive)."""
        if self._config.strategy != "full":
            raise ConfigError(f"{purpose} needs every response's reward: set score.strategy to full")
        if isinstance(self._judge, JudgeConfig) and any(judge.mode != "live" for judge, _ in self._judge.judges()):
            raise ConfigError(f"{purpose} waits for each reply, and batches take hours: set judge.mode to live")

    @asynccontextmanager
    async def _open_scorer(self) -> AsyncIterator[Scorer]:
        """Open an embedding retriever for one call, like the judge: each call may run in its own event loop."""
        if self._config.retriever.embedding_kind is None:
            yield self._scorer  # keeps its indexed documents between calls
            return
        retriever = open_retriever(self._config.retriever, ledger=self._ledger)
        try:
            yield self._scorer.with_retriever(retriever)
        finally:
            await retriever.close()

    @asynccontextmanager
    async def _open_judge(self) -> AsyncIterator[Judge]:
        if isinstance(self._judge, JudgeConfig):
            budget = self._budget or Budget(self._config.budget)
            async with open_judge(self._judge, ledger=self._ledger, budget=budget) as judge:
                yield judge
        else:  # the user closes a model of their own
            with Ledger(self._ledger) as ledger:
                yield Judge.from_model(self._judge, ledger=ledger)


def to_records(example: Example, responses: Sequence[Response | str]) -> list[Response]:
    """Return the responses as records with ids."""
    return [
        Response(id=f"{example.id}-{n}", example_id=example.id, query=example.query, text=response)
        if isinstance(response, str)
        else response
        for n, response in enumerate(responses)
    ]


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code; in a thread if an event loop runs, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # asyncio.run refuses to start in a thread with a running loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
