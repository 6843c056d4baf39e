"""Asks a judge what the reward asks it, one dimension at a time."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from longreward.judge import Judge
from longreward.judge.prompts import PromptSet
from longreward.records import Dimension, Verdict
from longreward.retrieval import Bm25Retriever
from longreward.reward.completeness import judge_completeness
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document, Library
from longreward.reward.extraction import extract, extraction_requests
from longreward.reward.faithfulness import judge_faithfulness
from longreward.reward.helpfulness import judge_helpfulness
from longreward.reward.logicality import judge_logicality
from longreward.utils.concurrency import gather
from longreward.utils.token_spans import open_tokenizer


@dataclass(frozen=True)
class RewardQueries:
    """One dimension of one response to a query about a document."""

    context: str
    query: str
    response: str
    dimension: Dimension


Scores = Mapping[RewardQueries, float | None]  # None: unscored


async def scores_of(
    judge: Judge, prompts: PromptSet, asks: Collection[RewardQueries], *, done: Callable[[], None] = lambda: None
) -> Scores:
    """The score of each, all asked at once; what several have in common is asked once."""
    library = Library(CONFIG, open_tokenizer(CONFIG.tokenizer), Bm25Retriever(), keep=len(asks) + 1)

    async def score(ask: RewardQueries) -> float | None:
        verdict = await verdict_on(judge, prompts, library.open(ask.context), ask)
        done()
        return verdict.score

    distinct = list(dict.fromkeys(asks))
    return dict(zip(distinct, await gather(score(ask) for ask in distinct), strict=True))


async def verdict_on(judge: Judge, prompts: PromptSet, document: Document, ask: RewardQueries) -> Verdict:
    """The verdict on one dimension of one response."""
    query, response = ask.query, ask.response
    match ask.dimension:
        case "helpfulness":
            return await judge_helpfulness(judge, prompts, query=query, response=response)
        case "logicality":
            return await judge_logicality(judge, prompts, query=query, response=response)
        case "faithfulness":
            return await judge_faithfulness(judge, prompts, CONFIG, document, query=query, response=response)
        case "completeness":
            requests = await extraction_requests(prompts, document, query=query)
            extracted = await extract(judge, prompts, requests, example_id="check", query=query)
            return await judge_completeness(judge, prompts, extracted, query=query, response=response)


# Evidence as the pipeline finds it by default, scaled down with the documents: 5 chunks of about 12.
CONFIG = ScoreConfig(evidence_chunk_tokens=32)
