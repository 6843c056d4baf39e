"""The reward in a few lines of Python.

>>> from longreward import LongReward
>>> card = LongReward().score(
...     context="Keld was founded in 1905 by Ann Lee.", query="Who founded Keld?", response="Ann Lee founded Keld."
... )
>>> card.complete
True
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from longreward.errors import ConfigError
from longreward.judge import ChatModel, ChatReply, ChatRequest, Judge, JudgeConfig, open_judge
from longreward.judge.budget import Budget
from longreward.records import Example, Response, ScoredResponse
from longreward.retrieval import Bm25Retriever, check_key, open_retriever
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import ScoredExample, Scorer, score_examples

T = TypeVar("T")


class LongReward:
    """Scores responses to queries about long documents; by default with the offline judge, which needs nothing.

    `judge`: how to reach a judge, or a ChatModel of your own (yours to close, under no budget). `ledger`: where
    exchanges and embeddings are kept, so that nothing is asked twice from call to call; without it each call stands
    alone. `budget`: one that all calls spend from, one after another or in one event loop; without it `config.budget`
    holds for each call.
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
        self._scorer = Scorer(self._config, retriever=Bm25Retriever())
        self._ledger = ledger
        self._budget = budget

    def score(self, *, context: str, query: str, response: str) -> ScoredResponse:
        """One response's four verdicts. Inside a running event loop it blocks that loop: there, await `ascore`."""
        return run_sync(self.ascore(context=context, query=query, response=response))

    async def ascore(self, *, context: str, query: str, response: str) -> ScoredResponse:
        """One response's four verdicts."""
        example = Example(id="0", document_id="0", context=context, query=query)
        scored = await self.ascore_responses(example, [Response(id="0-0", example_id="0", query=query, text=response)])
        return scored.responses[0]

    def score_responses(self, example: Example, responses: Sequence[Response | str]) -> ScoredExample:
        """Several responses to one example: the document is read once for all of them. See `score` on event loops."""
        return run_sync(self.ascore_responses(example, responses))

    async def ascore_responses(self, example: Example, responses: Sequence[Response | str]) -> ScoredExample:
        """Several responses to one example: the document is read once for all of them."""
        async with self._open() as judge, self._open_scorer() as scorer:
            return await scorer.score(judge, example, _as_records(example, responses))

    async def ascore_examples(
        self, examples: Iterable[tuple[Example, Sequence[Response | str]]]
    ) -> list[ScoredExample]:
        """Many examples with their responses, in the order given; `config.prompts_at_once` of them at a time."""
        items = ((example, _as_records(example, responses)) for example, responses in examples)
        async with self._open() as judge, self._open_scorer() as scorer:
            return [scored async for scored in score_examples(judge, self._config, items, scorer=scorer)]

    def check_immediate(self, purpose: str) -> None:
        """Raises ConfigError where answers would come after hours, or only for a prompt's best and worst response."""
        if self._config.strategy != "full":
            raise ConfigError(f"{purpose} needs every response's reward: set score.strategy to full")
        if isinstance(self._judge, JudgeConfig) and any(judge.mode != "live" for judge, _ in self._judge.judges()):
            raise ConfigError(f"{purpose} waits for each answer, and batches take hours: set judge.mode to live")

    @asynccontextmanager
    async def _open_scorer(self) -> AsyncIterator[Scorer]:
        """Embeddings are opened for one call, as the judge is: each call may run in an event loop of its own."""
        if self._config.retriever.kind == "bm25":
            yield self._scorer  # its documents stay indexed from call to call
            return
        retriever = open_retriever(self._config.retriever, ledger=self._ledger)
        try:
            yield self._scorer.using(retriever)
        finally:
            await retriever.close()

    def _open(self) -> Judge:
        if isinstance(self._judge, JudgeConfig):
            budget = self._budget or Budget(self._config.budget)  # of this call
            return open_judge(self._judge, ledger=self._ledger, budget=budget)
        from longreward.judge.ledger import Ledger

        return Judge.from_model(_Lent(self._judge), ledger=Ledger(self._ledger))


class _Lent:
    """A user's own model: asked, not closed."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        return await self._model.complete(request, temperature=temperature)

    async def close(self) -> None:
        pass


def _as_records(example: Example, responses: Sequence[Response | str]) -> list[Response]:
    return [
        Response(id=f"{example.id}-{n}", example_id=example.id, query=example.query, text=response)
        if isinstance(response, str)
        else response
        for n, response in enumerate(responses)
    ]


def run_sync(result: Coroutine[Any, Any, T]) -> T:
    """Runs to the end from code that is not async; in a thread of its own where a loop runs, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, result).result()
