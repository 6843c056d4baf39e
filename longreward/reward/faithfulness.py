"""Faithfulness: 10 times the mean support of the response's factual statements by the document (paper, section 3.1).

The judge lists the statements. Each statement is a query that retrieves chunks of the document, and from these the
judge rates its support: one statement per request, or several from the chunks of all of them
(`score.statements_per_call`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from longreward.errors import RequestRefused
from longreward.judge import ParsedReply
from longreward.judge.truncation import truncated_list, truncated_verdict
from longreward.records import Evidence, Statement, Verdict
from longreward.reward.panel import VerifiedStatement, make_statement, mean_votes
from longreward.reward.parser_sets import PARSERS
from longreward.reward.ratings import DimensionInput, make_verdict
from longreward.reward.statement_groups import verify_groups
from longreward.utils.concurrency import gather

NO_STATEMENT = "the response holds no factual statement"


async def judge_faithfulness(item: DimensionInput) -> Verdict:
    """List the statements with one call, then verify all of them at once."""
    listing = await list_statements(item)
    if not listing.value:
        return verdict_without_statements(item, listing)
    try:
        verified = await verify_statements(item, listing.value)
    except RequestRefused as refusal:  # an embedding model declined a statement
        return faithfulness_verdict(item, listing, (), score=None, reason=str(refusal))
    statements = [result.statement for result in verified]
    score, reason = mean_support(statements, total=len(statements))
    return faithfulness_verdict(item, listing, verified, score=score, reason=reason, statements=statements)


async def list_statements(item: DimensionInput) -> ParsedReply[tuple[str, ...]]:
    """Ask the judge for the factual statements of the response."""
    request = item.prompts.template("statements", item.language).request(
        {"question": item.query, "answer": item.response}
    )

    def parse(reply: str) -> tuple[str, ...] | None:
        return PARSERS[item.prompts.parsing].statements(reply, item.prompts.manifest.no_statement)

    return await item.judge.query(request, parse, parse_truncated=truncated_list(parse, end_tag="statement"))


async def verify_statements(item: DimensionInput, statements: Sequence[str]) -> list[VerifiedStatement]:
    """Retrieve the evidence for each statement and ask the judge for its support, all statements at once.

    Raises RequestRefused if an embedding model declines a statement.
    """
    evidence = await item.document.evidence(statements, item.config.evidence_chunks, item.query)
    if item.config.statements_per_call > 1 and any(evidence):
        return await verify_groups(item, statements, evidence, verify_statement)
    return await gather(map(partial(verify_statement, item), statements, evidence))


async def verify_statement(item: DimensionInput, text: str, chunks: tuple[Evidence, ...]) -> VerifiedStatement:
    """Ask the judge for the support of one statement by these chunks; without chunks there is none."""
    if not chunks:
        return VerifiedStatement(Statement(text=text, support=0.0, reason="the document is empty"), ())
    parse = PARSERS[item.prompts.parsing].support
    # Passages in document order, numbered from 1, as in the published prompts.
    passages = item.prompts.evidence([chunk.text for chunk in chunks], item.language)
    request = item.prompts.template("support", item.language).request({"statement": text, "context": passages})
    return make_statement(
        text, chunks, await item.judge.query_panel(request, parse, parse_truncated=truncated_verdict(parse))
    )


def mean_support(statements: Sequence[Statement], *, total: int) -> tuple[float | None, str | None]:
    """Return 10 times the mean support, or None and the reason if the support of a statement is unreadable.

    `total` is the number of statements of the response.
    """
    supports = [statement.support for statement in statements if statement.support is not None]
    if len(supports) == len(statements):
        return 10 * sum(supports) / total, None
    first = next(statement for statement in statements if statement.support is None)
    unreadable = len(statements) - len(supports)
    return None, f"{unreadable} of {total} statements have no readable support; the first: {first.reason}"


def verdict_without_statements(item: DimensionInput, listing: ParsedReply[tuple[str, ...]]) -> Verdict:
    """Return the verdict if the reply is unreadable or says that the response states no fact."""
    if listing.value is None:
        return faithfulness_verdict(item, listing, (), score=None, reason=listing.reason)
    score = 0.0 if item.config.no_statements == "zero" else None
    return faithfulness_verdict(item, listing, (), score=score, reason=NO_STATEMENT)


def faithfulness_verdict(
    item: DimensionInput,
    listing: ParsedReply[tuple[str, ...]],
    verified: Sequence[VerifiedStatement],
    *,
    score: float | None,
    reason: str | None,
    statements: Sequence[Statement] = (),
) -> Verdict:
    """Return the verdict with the usage of the listing and of all verified statements."""
    templates = ("statements", *item.config.support_templates) if verified else ("statements",)
    replies: list[ParsedReply[Any]] = [listing, *(reply for result in verified for reply in result.replies)]
    return make_verdict(
        item,
        replies,
        score=score,
        reason=reason,
        analysis=None if statements else listing.text,
        statements=statements,
        truncated=listing.truncated,
        prompt_hashes=tuple(item.prompts.template(name, item.language).hash for name in templates),
        members=mean_votes(statements, replies),
    )
