"""What each part of a document holds on a query, asked once a prompt for all of its responses (paper, section 3.1)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from longreward.judge import ChatRequest, Judge, ParsedReply
from longreward.judge.prompts import PromptSet
from longreward.judge.truncation import truncated_list
from longreward.records import Extract, Extraction
from longreward.retrieval.chunking import Chunk
from longreward.reward.document import Document
from longreward.reward.parsers import PARSERS
from longreward.reward.published_parsers import Extracted
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

    def parse(reply: str) -> Extracted | None:
        return PARSERS[prompts.parsing].extraction(reply, prompts.manifest.nothing_relevant)

    readings = await gather(
        judge.ask(request.question, parse, read_truncated=truncated_list(parse)) for request in requests
    )
    tokens = requests[-1].part.end_token if requests else 0
    return Extraction(
        example_id=example_id,
        query=query,
        extracts=tuple(
            _extract(request.part, tokens, reading) for request, reading in zip(requests, readings, strict=True)
        ),
        prompt_hashes=tuple(dict.fromkeys(request.question.prompt_hash for request in requests)),
        judge=judge.name_of("extraction"),
        calls=sum(reading.attempts for reading in readings),
        prompt_tokens=sum(reading.usage.prompt_tokens for reading in readings),
        completion_tokens=sum(reading.usage.completion_tokens for reading in readings),
    )


def _extract(part: Chunk, tokens: int, reading: ParsedReply[Extracted]) -> Extract:
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
