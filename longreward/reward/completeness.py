"""Completeness: whether the response covers what the document holds on the query (paper, section 3.1)."""

import asyncio

from longreward.judge import ChatRequest, Judge
from longreward.judge.prompts import PromptSet
from longreward.records import Extract, Extraction, Verdict
from longreward.reward.verdicts import rate, verdict
from longreward.utils.language import detect_language


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
