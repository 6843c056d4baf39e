"""Judge a response by a rating from 0 to 10: the dimensions helpfulness and logicality.

Every dimension is a function `async (DimensionInput) -> Verdict`. `scorer.py` lists them.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from longreward.chat_model import ChatRequest
from longreward.judge import Judge, ParsedReply
from longreward.judge.judge import join_names
from longreward.judge.prompts import PromptSet
from longreward.judge.truncation import truncated_verdict
from longreward.records import Extraction, MemberScore, Rubric, Statement, Verdict
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document
from longreward.reward.panel import RATING_REDUCERS, join_analyses, member_score, reduce_replies, sum_usage
from longreward.reward.parser_sets import PARSERS
from longreward.utils.language import Language, detect_language


@dataclass(frozen=True)
class DimensionInput:
    """A response with everything that a dimension may need to judge it."""

    judge: Judge
    prompts: PromptSet
    config: ScoreConfig
    document: Document
    extraction: Callable[[], Awaitable[Extraction]]
    """The information extracted from the document; computed once for all responses to the query."""
    query: str
    response: str
    """The text that is judged: without citations where these are a dimension of their own."""
    cited_response: str = ""
    """The text with its citations, if they are a dimension."""
    rubric: Callable[[], Awaitable[Rubric]] | None = None
    """The rubric of the prompt, also computed once; None unless the dimension rubric is in use."""

    @cached_property
    def language(self) -> Language:
        """The language of the prompts: that of query and response."""
        return detect_language(self.query, self.response)


JudgeDimension = Callable[[DimensionInput], Coroutine[Any, Any, Verdict]]


async def judge_rating(item: DimensionInput, *, template: str) -> Verdict:
    """Return the rating that the judge gives for `template` after it reads query and response (paper, section 3.1).

    One judge call. Helpfulness asks whether the response is relevant and complete and meets the user's purpose;
    logicality asks for contradictions and for wrong inferences and calculations.
    """
    prompt = item.prompts.template(template, item.language)
    return await request_rating(item, prompt.request({"question": item.query, "answer": item.response}))


async def request_rating(item: DimensionInput, request: ChatRequest) -> Verdict:
    """Send `request` to the judge and parse the rating in the reply."""
    parse = PARSERS[item.prompts.parsing].rating
    replies = await item.judge.query_panel(request, parse, parse_truncated=truncated_verdict(parse))
    score, reason = reduce_replies(replies, RATING_REDUCERS[item.judge.reducer])
    members = tuple(member_score(reply.judge, reply.value, [reply]) for reply in replies)
    return make_verdict(
        item,
        replies,
        score=score,
        reason=reason,
        analysis=join_analyses(replies),
        prompt_hashes=(request.prompt_hash,),
        members=members if len(members) > 1 else (),
    )


def make_verdict(
    item: DimensionInput,
    replies: Sequence[ParsedReply[Any]],
    *,
    score: float | None,
    reason: str | None,
    analysis: str | None = None,
    statements: Sequence[Statement] = (),
    prompt_hashes: tuple[str, ...],
    truncated: bool = False,
    members: tuple[MemberScore, ...] = (),
) -> Verdict:
    """Return a verdict that accounts for the calls and tokens of all `replies`, whichever run made the calls."""
    return Verdict(
        score=score,
        reason=reason,
        analysis=analysis or None,
        statements=tuple(statements),
        truncated=truncated,
        prompt_hashes=prompt_hashes,
        judge=join_names(reply.judge for reply in replies) or item.judge.name,
        members=members,
        **sum_usage(replies),
    )
