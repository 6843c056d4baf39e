"""What each part of a document holds on a query, asked once a prompt for all of its responses (paper, section 3.1)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from longreward.judge import ChatRequest, Judge, ParsedReply
from longreward.judge.prompts import PromptSet
from longreward.judge.truncation import truncated_list
from longreward.records import Extract, Extraction, Verdict
from longreward.retrieval.chunking import Chunk
from longreward.reward.document import Document
from longreward.reward.parsers import PARSERS
from longreward.reward.published_parsers import ExtractedText
from longreward.reward.ratings import rate, verdict
from longreward.utils.concurrency import gather
from longreward.utils.language import detect_language


@dataclass(frozen=True)
class ExtractionRequest:
    """One part of a document and the question about it."""

    part: Chunk
    question: ChatRequest


async def extraction_requests(prompts: PromptSet, document: Document, *, query: str) -> list[ExtractionRequest]:
    """One request a part; none for an empty document.

    Made in a thread: to fill the prompts, all of the document is searched for what must be escaped.
    """
    parts = await document.parts()

    def request(part: Chunk) -> ExtractionRequest:
        text = document.text[part.start : part.end]
        template = prompts.template("extraction", detect_language(text))
        return ExtractionRequest(part, template.ask({"context": text, "question": query}))

    return await asyncio.to_thread(lambda: [request(part) for part in parts])


async def extract(
    judge: Judge, prompts: PromptSet, requests: Sequence[ExtractionRequest], *, example_id: str, query: str
) -> Extraction:
    """One call a part, all at once; an extract without a readable answer is kept with its reason."""

    def parse(reply: str) -> ExtractedText | None:
        return PARSERS[prompts.parsing].extraction(reply, prompts.manifest.nothing_relevant)

    readings = await gather(
        judge.query(request.question, parse, parse_truncated=truncated_list(parse)) for request in requests
    )
    tokens = requests[-1].part.end_token if requests else 0
    return Extraction(
        example_id=example_id,
        query=query,
        extracts=tuple(
            _extract(request.part, tokens, reading) for request, reading in zip(requests, readings, strict=True)
        ),
        prompt_hashes=tuple(dict.fromkeys(request.question.prompt_hash for request in requests)),
        judge=judge.name_for("extraction"),
        calls=sum(reading.attempts for reading in readings),
        prompt_tokens=sum(reading.usage.prompt_tokens for reading in readings),
        completion_tokens=sum(reading.usage.completion_tokens for reading in readings),
    )


def _extract(part: Chunk, tokens: int, reading: ParsedReply[ExtractedText]) -> Extract:
    # In tokens, and with this order of operations, as the published code: 100 * a / b rounds some halves differently.
    return Extract(
        start=part.start,
        end=part.end,
        first_percent=round(part.first_token / max(tokens, 1) * 100),
        last_percent=round(part.end_token / tokens * 100) if tokens else 100,
        text=reading.value.text if reading.value is not None else None,
        reason=reading.reason,
        truncated=reading.truncated,
    )


# Completeness: whether the response covers what the document holds on the query (paper, section 3.1).


async def judge_completeness(
    judge: Judge, prompts: PromptSet, extraction: Extraction, *, query: str, response: str
) -> Verdict:
    """One call: the judge sees query, all extracts under their place in the document, and the response."""
    template = prompts.template("completeness", detect_language(query, response))
    unreadable = [extract for extract in extraction.extracts if extract.reason is not None]
    if unreadable:
        reason = _why_unscored(unreadable, len(extraction.extracts))
        return verdict(judge, [], score=None, reason=reason, prompt_hashes=extraction.prompt_hashes)
    shown = [(extract.first_percent, extract.last_percent, extract.text) for extract in extraction.extracts]

    def request() -> ChatRequest:
        context = prompts.extracts(shown, template.language)
        return template.ask({"question": query, "context": context, "answer": response})

    question = await asyncio.to_thread(request)  # the extracts of a large document are megabytes to escape
    rated = await rate(judge, question, prompts.parsing)
    cut = any(extract.truncated for extract in extraction.extracts)
    return rated.model_copy(update={"prompt_hashes": (*extraction.prompt_hashes, template.hash), "truncated": cut})


def _why_unscored(unreadable: list[Extract], parts: int) -> str:
    first = unreadable[0]
    return (
        f"{len(unreadable)} of {parts} parts of the document gave no readable extract; "
        f"the first, {first.first_percent}% - {first.last_percent}%: {first.reason}"
    )
