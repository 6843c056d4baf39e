"""Scoring for tools that call scorers from threads or event loops of their own: one judge, one event loop, for all.

with BackgroundScorer(JudgeConfig()) as scorer:
    scorer.score_rows(rows)                # all at once, with the concurrency of the judge
    scored = scorer.submit(row).result()   # from any thread; a row that was scored is not scored again
"""

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from longreward.judge import ChatModel, Judge, JudgeConfig, open_judge
from longreward.judge.budget import Budget
from longreward.judge.ledger import Ledger
from longreward.records import Example, Response, ScoredResponse
from longreward.reward import ScoreConfig, Scorer, score_examples


@dataclass(frozen=True)
class Row:
    """What is scored: a response to a query about a document."""

    context: str
    query: str
    response: str

    def records(self, id: str) -> tuple[Example, list[Response]]:
        """Return the row as an example with one response."""
        example = Example(id=id, document_id=id, context=self.context, query=self.query)
        return example, [Response(id=f"{id}-0", example_id=id, query=self.query, text=self.response)]


@dataclass(frozen=True)
class _Session:
    """An open judge in a running event loop."""

    loop: asyncio.AbstractEventLoop
    judge: Judge
    scorer: Scorer
    slots: asyncio.Semaphore
    close: asyncio.Event


class BackgroundScorer:
    """Scores rows in a thread with an event loop of its own, which holds the judge open until `close`.

    A tool calls each of four scorers for the same row, from several threads. All calls share one judge, so that its
    rate limits hold for all of them, and a row is scored once.

    Args:
        judge: the configuration of a judge, or a ChatModel of your own (you close it; no budget applies). None: the
            offline judge.
        config: settings of scoring. The strategy is always `full`, since every row is to get its scores.
        ledger: file for judge replies and embeddings, so that no request is repeated in a later call.
    """

    def __init__(
        self,
        judge: JudgeConfig | ChatModel | None = None,
        config: ScoreConfig | None = None,
        ledger: Path | None = None,
    ) -> None:
        self._judge = JudgeConfig() if judge is None else judge
        self._config = (config or ScoreConfig()).model_copy(update={"strategy": "full"})
        self._ledger = ledger
        self._results: dict[Row, Future[ScoredResponse]] = {}
        self._lock = threading.RLock()
        self._session: _Session | None = None
        self._thread: threading.Thread | None = None

    @property
    def judge_name(self) -> str:
        """The name of the judge, which is opened if it was not yet. Raises what opening it raises."""
        return self._open().judge.name

    def score_rows(self, rows: Sequence[Row]) -> list[ScoredResponse]:
        """Score all rows concurrently and return the results in order; `submit` then returns them at once.

        As many rows are in flight as the judge asks for (batches: all), or `config.prompts_at_once`. Raises JudgeError
        or BudgetExceeded at the first row that they end; the rows before it keep their results.
        """
        session = self._open()
        new = list(dict.fromkeys(row for row in rows if row not in self._results))
        asyncio.run_coroutine_threadsafe(self._score_all(session, new), session.loop).result()
        return [self._results[row].result() for row in rows]

    def submit(self, row: Row) -> "Future[ScoredResponse]":
        """Start to score a row, unless it was submitted before, and return its result as a future."""
        with self._lock:
            result = self._results.get(row)
            if result is None or (result.done() and (result.cancelled() or result.exception() is not None)):
                session = self._open()
                result = asyncio.run_coroutine_threadsafe(_score(session, row), session.loop)
                self._results[row] = result
            return result

    async def _score_all(self, session: _Session, rows: Sequence[Row]) -> None:
        items = (row.records(str(index)) for index, row in enumerate(rows))
        async with aclosing(score_examples(session.judge, session.scorer, items)) as examples:
            for row in rows:
                result: Future[ScoredResponse] = Future()
                result.set_result((await anext(examples)).responses[0])
                self._results[row] = result

    def _open(self) -> _Session:
        """Start the thread and open the judge in it."""
        with self._lock:
            if self._session is None:
                opened: Future[_Session] = Future()
                # A daemon: a tool that never closes its scorers must not keep the process alive.
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._hold_open(opened)), name="longreward scorer", daemon=True
                )
                self._thread.start()
                self._session = opened.result()
                atexit.register(self.close)
            return self._session

    async def _hold_open(self, opened: "Future[_Session]") -> None:
        try:
            async with self._open_judge() as judge, Scorer(self._config, ledger=self._ledger) as scorer:
                slots, close = asyncio.Semaphore(self._config.prompts_at_once), asyncio.Event()
                opened.set_result(_Session(asyncio.get_running_loop(), judge, scorer, slots, close))
                await close.wait()
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)

    @asynccontextmanager
    async def _open_judge(self) -> AsyncIterator[Judge]:
        if isinstance(self._judge, JudgeConfig):
            async with open_judge(self._judge, ledger=self._ledger, budget=Budget(self._config.budget)) as judge:
                yield judge
        else:  # the user closes a model of their own
            with Ledger(self._ledger) as ledger:
                yield Judge.from_model(self._judge, ledger=ledger)

    def close(self) -> None:
        """Close the judge and end the thread; a later call opens them again. Results are kept."""
        with self._lock:
            if self._session is not None and self._thread is not None:
                self._session.loop.call_soon_threadsafe(self._session.close.set)
                self._thread.join()
                atexit.unregister(self.close)
            self._session = self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


async def _score(session: _Session, row: Row) -> ScoredResponse:
    async with session.slots:
        return (await session.scorer.score(session.judge, *row.records("0"))).responses[0]
