"""Completeness: whether the response covers the information of the document on the query (paper, section 3.1).

The judge extracts the relevant information from each chunk of the document, once per query and not per response. It
then rates each response against all extracts.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from longreward.judge import ChatRequest, Judge, ParsedReply
from longreward.judge.escaping import LabelledText
from longreward.judge.prompts import PromptSet
from longreward.judge.reply_parsing import ExtractedText
from longreward.judge.truncation import truncated_list
from longreward.records import Extract, Extraction, Verdict
from longreward.retrieval.chunking import Chunk
from longreward.reward.document import Document
from longreward.reward.panel import sum_usage
from longreward.reward.parser_sets import PARSERS
from longreward.reward.ratings import DimensionInput, make_verdict, request_rating
from longreward.utils.concurrency import gather
from longreward.utils.language import Language, detect_language


class ExtractionRequest(NamedTuple):
    """A chunk of the document and the request to extract from it."""

    chunk: Chunk
    request: ChatRequest


async def extraction_requests(prompts: PromptSet, document: Document, *, query: str) -> list[ExtractionRequest]:
    """Return one request per chunk of the document; none for an empty document."""
    chunks = await document.extraction_chunks()

    def extraction_request(chunk: Chunk) -> ExtractionRequest:
        text = document.text[chunk.start : chunk.end]
        template = prompts.template("extraction", detect_language(text))
        return ExtractionRequest(chunk, template.request({"context": text, "question": query}))

    # In a thread: filling the prompts searches the whole document for text to escape.
    return await asyncio.to_thread(lambda: [extraction_request(chunk) for chunk in chunks])


async def extract(
    judge: Judge, prompts: PromptSet, requests: Sequence[ExtractionRequest], *, example_id: str, query: str
) -> Extraction:
    """Send all requests at once; an extract without a readable reply keeps the reason."""

    def parse(reply: str) -> ExtractedText | None:
        return PARSERS[prompts.parsing].extraction(reply, prompts.manifest.nothing_relevant)

    # The judge sees each chunk alone, so that the calls do not depend on each other.
    replies = await gather(
        judge.query(request, parse, parse_truncated=truncated_list(parse)) for _, request in requests
    )
    document_tokens = requests[-1].chunk.end_token if requests else 0
    return Extraction(
        example_id=example_id,
        query=query,
        extracts=tuple(
            _make_extract(chunk, document_tokens, reply) for (chunk, _), reply in zip(requests, replies, strict=True)
        ),
        prompt_hashes=tuple(dict.fromkeys(request.prompt_hash for _, request in requests)),
        judge=judge.name_for("extraction"),
        **sum_usage(replies),
    )


def _make_extract(chunk: Chunk, document_tokens: int, reply: ParsedReply[ExtractedText]) -> Extract:
    # Percentages of tokens, in the published code's order of operations: 100 * a / b rounds some halves differently.
    return Extract(
        start=chunk.start,
        end=chunk.end,
        first_percent=round(chunk.first_token / max(document_tokens, 1) * 100),
        last_percent=round(chunk.end_token / document_tokens * 100) if document_tokens else 100,
        text=reply.value.text if reply.value is not None else None,
        reason=reply.reason,
        truncated=reply.truncated,
    )


def unreadable_extracts(extraction: Extraction) -> str | None:
    """Return the reason why the extracts cannot be used; None if all are readable."""
    unreadable = [extract for extract in extraction.extracts if extract.reason is not None]
    if not unreadable:
        return None
    first = unreadable[0]
    return (
        f"{len(unreadable)} of {len(extraction.extracts)} parts of the document gave no readable extract; "
        f"the first, {first.first_percent}% - {first.last_percent}%: {first.reason}"
    )


def labelled_extracts(prompts: PromptSet, extraction: Extraction, language: Language) -> LabelledText:
    """Return the extracts for the slot of a prompt."""
    extracts = [(extract.first_percent, extract.last_percent, extract.text) for extract in extraction.extracts]
    return prompts.extracts(extracts, language)


async def judge_completeness(item: DimensionInput) -> Verdict:
    """Return the judge's rating of the response against the query and all extracts, with one call.

    The response is unscored if an extract is unreadable: information that may be relevant would be missing.
    """
    extraction = await item.extraction()
    if reason := unreadable_extracts(extraction):
        return make_verdict(item, [], score=None, reason=reason, prompt_hashes=extraction.prompt_hashes)
    template = item.prompts.template("completeness", item.language)

    def rating_request() -> ChatRequest:
        context = labelled_extracts(item.prompts, extraction, item.language)
        return template.request({"question": item.query, "context": context, "answer": item.response})

    # In a thread: the extracts of a large document are megabytes of text to escape.
    verdict = await request_rating(item, await asyncio.to_thread(rating_request))
    truncated = any(extract.truncated for extract in extraction.extracts)
    return verdict.model_copy(
        update={"prompt_hashes": (*extraction.prompt_hashes, template.hash), "truncated": truncated}
    )
