"""Scores responses: all calls that do not wait for each other run at once, prompts overlap, results come in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from longreward.errors import ConfigError
from longreward.judge import Judge
from longreward.judge.prompts import load_prompts
from longreward.records import Example, Extraction, Response, ScoredResponse, Verdict
from longreward.retrieval import Retriever, open_retriever
from longreward.reward.adaptive import IncrementalScorer, score_extremes
from longreward.reward.completeness import extract, extraction_requests, judge_completeness
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document, DocumentCache
from longreward.reward.faithfulness import Faithfulness, judge_faithfulness
from longreward.reward.ratings import judge_helpfulness, judge_logicality
from longreward.utils.concurrency import gather
from longreward.utils.token_spans import open_tokenizer


@dataclass(frozen=True)
class ScoredExample:
    """One prompt's responses with their verdicts, in the order given, and the extraction that they share."""

    extraction: Extraction
    responses: tuple[ScoredResponse, ...]


async def score_examples(
    judge: Judge,
    config: ScoreConfig,
    examples: Iterable[tuple[Example, Sequence[Response]]],
    *,
    scorer: "Scorer | None" = None,
    progress: Callable[[int], None] | None = None,
) -> AsyncGenerator[ScoredExample, None]:
    """Each example with its responses, scored, in input order and as soon as it and all before it are complete.

    Takes up to `config.prompts_at_once` examples at once from `examples`, or as many as a judge that is asked in
    batches wants. `progress` is told how many are complete, in whatever order. Where the judge fails, all calls under
    way are cancelled and its JudgeError is raised; what was answered by then is in the judge's ledger, so that scoring
    the same again goes on from there. Without `scorer` one is made, with embeddings in memory only. Raises ConfigError
    for batches with another strategy than `full`.
    """
    if judge.prompts_in_flight and config.strategy != "full":
        raise ConfigError(f"score.strategy is {config.strategy}, and batches ask everything: set it to full")
    own = scorer is None
    scorer = scorer or Scorer(config)
    in_flight = judge.prompts_in_flight or config.prompts_at_once
    waiting = iter(examples)
    tasks: deque[asyncio.Task[ScoredExample]] = deque()
    complete = 0
    try:
        while True:
            pending = [task for task in tasks if not task.done()]
            room = min(in_flight - len(pending), HELD_BACK * in_flight - len(tasks))
            started = [
                asyncio.create_task(scorer.score(judge, example, responses))
                for example, responses in islice(waiting, max(room, 0))
            ]
            tasks.extend(started)
            pending += started
            if not tasks:
                return
            if pending:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                complete += len(done)
                if progress is not None:
                    progress(complete)
            while tasks and tasks[0].done():
                yield tasks.popleft().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if own:
            await scorer.close()


class Scorer:
    """What scoring needs besides a judge: prompts, tokenizer, retriever, and the documents of late.

    Close it, or use it with `async with`, where `config.retriever` embeds: its vectors are kept at `ledger` (None: in
    memory). A retriever of your own is yours to close. Raises ConfigError where the prompts, the tokenizer or the
    retriever's model, package or key is missing, StateError where the ledger cannot be opened.
    """

    def __init__(self, config: ScoreConfig, *, retriever: Retriever | None = None, ledger: Path | None = None) -> None:
        self._config = config
        self._prompts = load_prompts(config.prompts_dir, config.prompts_manifest, parsing=config.parsing)
        self._tokenizer = open_tokenizer(config.tokenizer)
        self._lent = retriever is not None
        self._set(retriever or open_retriever(config.retriever, ledger=ledger))

    def using(self, retriever: Retriever) -> "Scorer":
        """The same with another retriever, which stays the caller's to close; prompts and tokenizer are shared."""
        other = copy(self)
        other._lent = True
        other._set(retriever)
        return other

    def figures(self) -> dict[str, float]:
        """Counts of the retriever since the scorer was made, as metrics; BM25 has none."""
        return self._retriever.metrics()

    async def close(self) -> None:
        """Lets go of the retriever's connections."""
        if not self._lent:
            await self._retriever.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def settings(self) -> dict[str, str | int]:
        """What decides about scores besides the judge, to be kept with them."""
        return {
            "tokenizer": self._tokenizer.name,
            "evidence_chunk_tokens": self._config.evidence_chunk_tokens,
            "evidence_chunks": self._config.evidence_chunks,
            "extraction_chunk_tokens": self._config.extraction_chunk_tokens,
            **self._retriever.settings(),
            "no_statements": self._config.no_statements,
            **({} if self._config.strategy == "full" else {"strategy": self._config.strategy}),
            "parsing": self._config.parsing,
            "prompts": self._prompts.hash,
        }

    async def score(self, judge: Judge, example: Example, responses: Sequence[Response]) -> ScoredExample:
        """All four dimensions of all responses to one example, as far as `strategy` asks for them.

        Nothing is asked where there is no response.
        """
        document = self._library.open(example.context)
        if not responses:
            return ScoredExample(Extraction(example_id=example.id, query=example.query, extracts=()), ())
        # Before the responses' own questions, which would take the judge's free slots: completeness waits for these.
        requests = await extraction_requests(self._prompts, document, query=example.query)
        extraction = asyncio.ensure_future(
            extract(judge, self._prompts, requests, example_id=example.id, query=example.query)
        )
        try:
            if self._config.strategy == "extremes":
                scored = await self._score_extremes(judge, example, document, extraction, responses)
            else:
                scored = await gather(
                    self._score_one(judge, example, document, extraction, response) for response in responses
                )
            return ScoredExample(await extraction, tuple(scored))
        finally:
            extraction.cancel()
            await asyncio.gather(extraction, return_exceptions=True)

    async def faithfulness(self, judge: Judge, *, context: str, query: str, response: str) -> Verdict:
        """This dimension alone, of any response; it needs no extraction."""
        document = self._library.open(context)
        return await judge_faithfulness(judge, self._prompts, self._config, document, query=query, response=response)

    def _set(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._library = DocumentCache(self._config, self._tokenizer, retriever, keep=2 * self._config.prompts_at_once)

    async def _score_one(
        self,
        judge: Judge,
        example: Example,
        document: Document,
        extraction: "asyncio.Future[Extraction]",
        response: Response,
    ) -> ScoredResponse:
        prompts, query, text = self._prompts, example.query, response.text

        async def after_extraction() -> Verdict:
            extracted = await asyncio.shield(extraction)  # one response's end must not end it for the others
            return await judge_completeness(judge, prompts, extracted, query=query, response=text)

        faithfulness, helpfulness, logicality, completeness = await gather(
            [  # what others wait for is asked first
                judge_faithfulness(judge, prompts, self._config, document, query=query, response=text),
                judge_helpfulness(judge, prompts, query=query, response=text),
                judge_logicality(judge, prompts, query=query, response=text),
                after_extraction(),
            ]
        )
        return ScoredResponse(
            response=response,
            verdicts={
                "helpfulness": helpfulness,
                "logicality": logicality,
                "faithfulness": faithfulness,
                "completeness": completeness,
            },
        )

    async def _score_extremes(
        self,
        judge: Judge,
        example: Example,
        document: Document,
        extraction: "asyncio.Future[Extraction]",
        responses: Sequence[Response],
    ) -> list[ScoredResponse]:
        prompts, query = self._prompts, example.query
        courses: dict[str, IncrementalScorer] = {}
        for text in dict.fromkeys(response.text for response in responses):
            faithfulness = Faithfulness(judge, prompts, self._config, document, query=query, response=text)
            courses[text] = IncrementalScorer(judge, prompts, extraction, faithfulness, query=query, response=text)
        in_order = sorted(responses, key=lambda response: response.number)
        scored = await score_extremes([courses[response.text] for response in in_order], in_order)
        by_id = {one.response.id: one for one in scored}
        return [by_id[response.id] for response in responses]


HELD_BACK = 4  # complete examples may wait for a slow one before them, up to this many times prompts_in_flight
