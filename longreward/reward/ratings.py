"""Makes verdicts from readings: the score or the reason, and what they cost."""

from collections.abc import Sequence
from typing import Any

from longreward.chat_model import ChatRequest
from longreward.judge import Judge, ParsedReply
from longreward.judge.prompts import Parsing, PromptSet
from longreward.judge.truncation import truncated_verdict
from longreward.records import Statement, Verdict
from longreward.reward.parsers import PARSERS
from longreward.utils.language import detect_language


async def rate(judge: Judge, question: ChatRequest, parsing: Parsing) -> Verdict:
    """Asks for a rating from 0 to 10."""
    parse = PARSERS[parsing].rating
    reading = await judge.query(question, parse, parse_truncated=truncated_verdict(parse))
    return verdict(
        judge,
        [reading],
        score=reading.value,
        reason=reading.reason,
        analysis=reading.text,
        prompt_hashes=(question.prompt_hash,),
    )


def verdict(
    judge: Judge,
    readings: Sequence[ParsedReply[Any]],
    *,
    score: float | None,
    reason: str | None,
    analysis: str | None = None,
    statements: tuple[Statement, ...] = (),
    prompt_hashes: tuple[str, ...],
    truncated: bool = False,
) -> Verdict:
    """A verdict with the calls and tokens of all `readings` behind it, whichever run made them."""
    return Verdict(
        score=score,
        reason=reason,
        analysis=analysis or None,
        statements=statements,
        truncated=truncated,
        prompt_hashes=prompt_hashes,
        judge=readings[0].judge if readings else judge.name,
        calls=sum(reading.attempts for reading in readings),
        prompt_tokens=sum(reading.usage.prompt_tokens for reading in readings),
        completion_tokens=sum(reading.usage.completion_tokens for reading in readings),
    )


# Helpfulness: relevant, meets the purpose, full and fitting, in the form asked for (paper, section 3.1).


async def judge_helpfulness(judge: Judge, prompts: PromptSet, *, query: str, response: str) -> Verdict:
    """One call: the judge sees query and response."""
    template = prompts.template("helpfulness", detect_language(query, response))
    return await rate(judge, template.ask({"question": query, "answer": response}), prompts.parsing)


# Logicality: no contradiction, no wrong inference or calculation (paper, section 3.1).


async def judge_logicality(judge: Judge, prompts: PromptSet, *, query: str, response: str) -> Verdict:
    """One call: the judge sees query and response."""
    template = prompts.template("logicality", detect_language(query, response))
    return await rate(judge, template.ask({"question": query, "answer": response}), prompts.parsing)
