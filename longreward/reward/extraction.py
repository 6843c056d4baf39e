"""What each part of a document holds on a query, asked once a prompt for all of its responses (paper, section 3.1)."""

from longreward.chunking import Chunk
from longreward.judging import Judge, Reading
from longreward.judging.prompting import PromptSet
from longreward.judging.truncation import truncated_list
from longreward.records import Extract, Extraction
from longreward.reward.document import Document
from longreward.reward.parsers import PARSERS
from longreward.reward.published_parsers import Extracted
from longreward.script import language_of
from longreward.together import together


async def extract(judge: Judge, prompts: PromptSet, document: Document, *, example_id: str, query: str) -> Extraction:
    """One call a part, all at once; an extract without a readable answer is kept with its reason."""
    questions = [_ask(judge, prompts, document.text[part.start : part.end], query) for part in document.parts]
    asked = await together(questions)
    readings = [reading for reading, _ in asked]
    return Extraction(
        example_id=example_id,
        query=query,
        extracts=tuple(
            _extract(part, document.parts[-1].end_token, reading)
            for part, reading in zip(document.parts, readings, strict=True)
        ),
        prompt_hashes=tuple(dict.fromkeys(prompt_hash for _, prompt_hash in asked)),
        judge=judge.name_of("extraction"),
        calls=sum(reading.attempts for reading in readings),
        prompt_tokens=sum(reading.usage.prompt_tokens for reading in readings),
        completion_tokens=sum(reading.usage.completion_tokens for reading in readings),
    )


async def _ask(judge: Judge, prompts: PromptSet, part: str, query: str) -> tuple[Reading[Extracted], str]:
    template = prompts.template("extraction", language_of(part))
    question = template.ask({"context": part, "question": query})

    def parse(reply: str) -> Extracted | None:
        return PARSERS[prompts.parsing].extraction(reply, prompts.manifest.nothing_relevant)

    return await judge.ask(question, parse, read_truncated=truncated_list(parse)), template.hash


def _extract(part: Chunk, tokens: int, reading: Reading[Extracted]) -> Extract:
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
