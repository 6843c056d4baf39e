"""The support of several statements by one request (`score.statements_per_call`)."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

from longreward.chat_model import TokenUsage
from longreward.judge import ParsedReply
from longreward.judge.continuation import end_list
from longreward.judge.prompt_manifest import SUPPORT_LIST
from longreward.judge.reply_text import parse_json_reply
from longreward.judge.truncation import truncated_list
from longreward.records import Evidence
from longreward.reward.optional_parsers import numbered_sections
from longreward.reward.panel import VerifiedStatement, make_statement
from longreward.reward.parsers import parse_support
from longreward.reward.ratings import DimensionInput
from longreward.utils.concurrency import gather

SUPPORT_TOKENS = 100
"""Tokens of the reply for each statement: an analysis and a level."""


class SupportCheck(NamedTuple):
    """The support of one of several statements, with the judge's analysis."""

    support: float
    analysis: str


@dataclass(frozen=True)
class GroupReplies:
    """The judge's verdicts on several statements."""

    chunks: tuple[Evidence, ...]
    """The chunks of all statements, which the judge saw."""
    replies: list[list[ParsedReply[float]]]
    """For each statement the verdict of each judge of the panel, mostly of one."""
    is_answered: bool
    """Whether every judge replied; otherwise requests for single statements would fail in the same way."""


async def verify_groups(
    item: DimensionInput,
    statements: Sequence[str],
    evidence: Sequence[tuple[Evidence, ...]],
    verify_single: Callable[[DimensionInput, str, tuple[Evidence, ...]], Awaitable[VerifiedStatement]],
) -> list[VerifiedStatement]:
    """Verify several statements with each request, then those without a readable verdict again by `verify_single`."""
    size = item.config.statements_per_call

    async def verify_group(first: int) -> list[VerifiedStatement]:
        texts, own = statements[first : first + size], evidence[first : first + size]
        if len(texts) == 1:
            return [await verify_single(item, texts[0], own[0])]
        group = await request_supports(item, texts, own)

        async def verify(
            text: str, chunks: tuple[Evidence, ...], replies: list[ParsedReply[float]]
        ) -> VerifiedStatement:
            if not group.is_answered or all(reply.value is not None for reply in replies):
                return make_statement(text, group.chunks, replies)
            single = await verify_single(item, text, chunks)
            return VerifiedStatement(single.statement, [*replies, *single.replies])

        return await gather(map(verify, texts, own, group.replies))

    return list(chain.from_iterable(await gather(map(verify_group, range(0, len(statements), size)))))


async def request_supports(
    item: DimensionInput, texts: Sequence[str], evidence: Sequence[tuple[Evidence, ...]]
) -> GroupReplies:
    """Ask the judge for the support of each statement by the evidence of all of them."""
    template = item.prompts.template(SUPPORT_LIST, item.language)
    by_start = {chunk.start: chunk for chunks in evidence for chunk in chunks}
    chunks = tuple(by_start[start] for start in sorted(by_start))  # in document order
    numbered = "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(texts, 1))
    request = template.request(
        {"statement": numbered, "context": item.prompts.evidence([chunk.text for chunk in chunks], item.language)},
        max_tokens=max(template.max_tokens, SUPPORT_TOKENS * len(texts)),
    )
    parse = partial(parse_supports, count=len(texts))
    replies = await item.judge.query_panel(end_list(request, len(texts)), parse, parse_truncated=truncated_list(parse))
    return GroupReplies(
        chunks,
        [[_select_check(reply, index) for reply in replies] for index in range(len(texts))],
        is_answered=all(reply.attempts for reply in replies),
    )


def parse_supports(text: str, *, count: int) -> tuple[SupportCheck | None, ...] | None:
    """Return the verdicts on `count` statements, in their order; None for a missing, repeated or unreadable one.

    None if none can be read, or if a JSON list has another length, where verdicts cannot be assigned.

    >>> parse_supports("1. Both are in passage 2. [[Fully supported]]\\n3. [[No support]]", count=3)
    (SupportCheck(support=1.0, analysis='Both are in passage 2.'), None, SupportCheck(support=0.0, analysis=''))
    """
    sections = numbered_sections(text, key="support")
    numbers = Counter(number for number, *_ in sections)
    if parse_json_reply(text) is not None and len(sections) != count:
        return None
    checks: list[SupportCheck | None] = [None] * count
    for number, analysis, section in sections:
        support = parse_support(section)
        if support is not None and numbers[number] == 1 and 1 <= number <= count:
            checks[number - 1] = SupportCheck(support, analysis)
    return tuple(checks) if any(checks) else None


def _select_check(reply: ParsedReply[tuple[SupportCheck | None, ...]], index: int) -> ParsedReply[float]:
    """Return the part of a reply about one statement; the reply's usage counts once, with the first one."""
    check = reply.value[index] if reply.value is not None else None
    return ParsedReply(
        value=None if check is None else check.support,
        reason=reply.reason or "the reply has no readable line about this statement" if check is None else None,
        text=reply.text if check is None else check.analysis,
        attempts=reply.attempts if index == 0 else 0,
        calls=reply.calls if index == 0 else 0,
        usage=reply.usage if index == 0 else TokenUsage(),
        judge=reply.judge,
    )
