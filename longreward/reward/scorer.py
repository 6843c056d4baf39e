"""Score responses: all dimensions of each response to an example, judged at once."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Self

from longreward.judge import Judge
from longreward.records import Dimension, Example, Extraction, Response, Rubric, ScoredResponse, Verdict
from longreward.retrieval import Retriever, open_retriever
from longreward.reward.citations import judge_citations, response_texts
from longreward.reward.completeness import extract, extraction_requests, judge_completeness
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document
from longreward.reward.faithfulness import judge_faithfulness
from longreward.reward.ratings import DimensionInput, JudgeDimension, judge_rating
from longreward.reward.rubric import judge_rubric, shared_rubric
from longreward.utils.concurrency import gather, shared_call
from longreward.utils.token_spans import open_tokenizer

# Judge calls start in this order. Faithfulness comes first because its verification calls wait for its first call.
DIMENSION_JUDGES: Mapping[Dimension, JudgeDimension] = {
    "faithfulness": judge_faithfulness,
    "helpfulness": partial(judge_rating, template="helpfulness"),
    "logicality": partial(judge_rating, template="logicality"),
    "completeness": judge_completeness,
    "rubric": judge_rubric,
    "citations": judge_citations,
}


@dataclass(frozen=True)
class ScoredExample:
    """The scored responses to one example, in input order, and the extraction and the rubric that they share."""

    extraction: Extraction
    responses: tuple[ScoredResponse, ...]
    rubric: Rubric | None = None
    """None unless the dimension rubric is in use."""


class Scorer:
    """Prompts, tokenizer, retriever and recent documents: everything that scoring needs besides a judge.

    Use it with `async with`, or close it. `ledger`: where the embeddings of a retriever that embeds are kept (None: in
    memory). A `retriever` that you pass remains yours to close. Raises ConfigError if prompts, tokenizer, or the
    retriever's model, package or key are missing, StateError if the ledger cannot be opened.
    """

    def __init__(self, config: ScoreConfig, *, retriever: Retriever | None = None, ledger: Path | None = None) -> None:
        self.config = config
        self.prompts = config.load_prompts()
        self._tokenizer = open_tokenizer(config.tokenizer)
        self._owns_retriever = retriever is None
        self._set_retriever(retriever or open_retriever(config.retriever, ledger=ledger))

    def with_retriever(self, retriever: Retriever) -> Self:
        """Return a scorer that shares prompts and tokenizer; the caller closes `retriever`."""
        # A shallow copy: loading prompts and a tokenizer takes seconds, a retriever is opened for every call.
        scorer = copy(self)
        scorer._owns_retriever = False
        scorer._set_retriever(retriever)
        return scorer

    async def score(self, judge: Judge, example: Example, responses: Sequence[Response]) -> ScoredExample:
        """Score all responses to one example. Without responses no call is made."""
        if not responses:
            return ScoredExample(Extraction(example_id=example.id, query=example.query, extracts=()), ())
        document = self.document(example.context)
        # The extraction calls start first because completeness waits for them, and the judge's free slots are limited.
        requests = await extraction_requests(self.prompts, document, query=example.query)
        extracting = extract(judge, self.prompts, requests, example_id=example.id, query=example.query)
        async with (
            shared_call(extracting) as extraction,
            shared_rubric(judge, self.prompts, self.config, example, extraction) as rubric,
        ):
            # Equal texts have equal verdicts: their requests would be equal, too.
            items = {
                text: DimensionInput(
                    judge=judge,
                    prompts=self.prompts,
                    config=self.config,
                    document=document,
                    extraction=extraction,
                    query=example.query,
                    rubric=rubric,
                    **response_texts(self.config, text, document.text),
                )
                for text in dict.fromkeys(response.text for response in responses)
            }
            scored = await self._score_responses(items, responses)
            return ScoredExample(await extraction(), tuple(scored), None if rubric is None else await rubric())

    async def _score_responses(
        self, items: Mapping[str, DimensionInput], responses: Sequence[Response]
    ) -> list[ScoredResponse]:
        """Score all responses; `items` has what judging them needs, by their text."""
        judged = await gather(map(self._judge_dimensions, items.values()))
        verdicts = dict(zip(items, judged, strict=True))
        return [ScoredResponse(response=response, verdicts=verdicts[response.text]) for response in responses]

    async def _judge_dimensions(self, item: DimensionInput) -> dict[Dimension, Verdict]:
        """Judge all dimensions of one response at once."""
        dimensions = [dimension for dimension in DIMENSION_JUDGES if dimension in self.config.dimensions]
        judged = await gather(DIMENSION_JUDGES[dimension](item) for dimension in dimensions)
        verdicts = dict(zip(dimensions, judged, strict=True))
        return {dimension: verdicts[dimension] for dimension in self.config.dimensions}

    @property
    def settings(self) -> dict[str, str | int | float]:
        """Everything besides the judge that scores depend on; it is stored with the scores."""
        return {
            "tokenizer": self._tokenizer.name,
            "evidence_chunk_tokens": self.config.evidence_chunk_tokens,
            "evidence_chunks": self.config.evidence_chunks,
            "extraction_chunk_tokens": self.config.extraction_chunk_tokens,
            **self._retriever.settings(),
            "no_statements": self.config.no_statements,
            # Omitted for `full`, the only strategy of published score files.
            **({} if self.config.strategy == "full" else {"strategy": self.config.strategy}),
            **({"optional_dimensions": ", ".join(optional)} if (optional := self.config.optional_dimensions) else {}),
            **({"statements_per_call": count} if (count := self.config.statements_per_call) > 1 else {}),
            "parsing": self.config.parsing,
            "prompts": self.prompts.hash,
        }

    def metrics(self) -> dict[str, float]:
        """Return the retriever's counts since it was opened; BM25 has none."""
        return self._retriever.metrics()

    def _set_retriever(self, retriever: Retriever) -> None:
        self._retriever = retriever
        # Prompts about one document share its chunks and its index.
        self.document = lru_cache(maxsize=2 * self.config.prompts_at_once)(
            lambda text: Document(text, self.config, self._tokenizer, retriever)
        )

    async def close(self) -> None:
        """Release the retriever's connections."""
        if self._owns_retriever:
            await self._retriever.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
