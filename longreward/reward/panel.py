"""Make one verdict of the replies of a panel: several judges that get the same request (`judge.panel`).

    ratings  7, 4, 6    mean 5.67, median 6
    support  1, 0.5, 1  majority 1

A verdict needs the replies of all judges: judges differ in how strict they are, so that the mean of fewer is no
comparable score. With one judge, its verdict is unchanged.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from longreward.judge import ParsedReply
from longreward.judge.config import Reducer
from longreward.records import (
    EQUAL_WEIGHTS,
    Bounds,
    Dimension,
    Evidence,
    MemberScore,
    ScoredResponse,
    Statement,
    weighted_bounds,
)


class VerifiedStatement(NamedTuple):
    """A statement with its support, and the judge's reply, or those of a panel (none without evidence to show)."""

    statement: Statement
    replies: Sequence[ParsedReply[float]]


RATING_REDUCERS: Mapping[Reducer, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
}


def majority(votes: Sequence[float]) -> float:
    """Return the level with the most votes; of tied levels the middle one, of two the lower.

    A tie of two judges thus counts against the response: the support of its statement is in doubt.

    >>> majority([1.0, 0.5, 1.0]), majority([1.0, 0.0]), majority([1.0, 0.5, 0.0])
    (1.0, 0.0, 0.5)
    """
    return statistics.median_low(statistics.multimode(votes))


def reduce_replies(
    replies: Sequence[ParsedReply[float]], reduce: Callable[[Sequence[float]], float]
) -> tuple[float | None, str | None]:
    """Return the reduced value, or None and the reason of the first judge without a readable reply."""
    values = [reply.value for reply in replies if reply.value is not None]
    if len(values) == len(replies):
        return (values[0] if len(values) == 1 else reduce(values)), None
    first = next(reply for reply in replies if reply.value is None)
    return None, first.reason if len(replies) == 1 else f"{first.judge}: {first.reason}"


def join_analyses(replies: Sequence[ParsedReply[float]]) -> str:
    """Return the text of the reply, or of each judge's under its name."""
    if len(replies) == 1:
        return replies[0].text
    return "\n\n".join(f"{reply.judge}:\n{reply.text}" for reply in replies)


def make_statement(text: str, chunks: tuple[Evidence, ...], replies: Sequence[ParsedReply[float]]) -> VerifiedStatement:
    """Return the statement with the majority of its support, and the vote of each judge of a panel."""
    support, reason = reduce_replies(replies, majority)
    votes = {reply.judge: reply.value for reply in replies} if len(replies) > 1 else {}
    statement = Statement(
        text=text,
        support=support,
        votes=votes,
        analysis=join_analyses(replies) or None,
        evidence=chunks,
        reason=reason,
    )
    return VerifiedStatement(statement, replies)


def member_score(judge: str, score: float | None, replies: Sequence[ParsedReply[Any]]) -> MemberScore:
    """Return the score of one judge of a panel with the usage of its replies."""
    return MemberScore(judge=judge, score=score, **sum_usage(replies))


def mean_votes(statements: Sequence[Statement], replies: Sequence[ParsedReply[Any]]) -> tuple[MemberScore, ...]:
    """Return the faithfulness by each judge of a panel; None where it rated some statements only."""
    members = []
    for judge in dict.fromkeys(judge for statement in statements for judge in statement.votes):
        votes = [vote for statement in statements if (vote := statement.votes.get(judge)) is not None]
        score = 10 * statistics.fmean(votes) if len(votes) == len(statements) else None
        members.append(member_score(judge, score, [reply for reply in replies if reply.judge == judge]))
    return tuple(members)


def member_rewards(scored: ScoredResponse, weights: Mapping[Dimension, float] = EQUAL_WEIGHTS) -> dict[str, float]:
    """Return the weighted reward by each judge of a panel, where it has rated all that the panel has.

    In a dimension that a judge does not rate, the score of the others counts. Empty for one judge.
    """
    judges = dict.fromkeys(member.judge for verdict in scored.verdicts.values() for member in verdict.members)
    rewards = {}
    for judge in judges:
        scores: dict[Dimension, Bounds | None] = {}
        for dimension, verdict in scored.verdicts.items():
            rating = [member.score for member in verdict.members if member.judge == judge]
            score = rating[0] if rating else verdict.score
            scores[dimension] = None if score is None else (score, score)
        if (bounds := weighted_bounds(scores, weights)) is not None:
            rewards[judge] = bounds[0]
    return rewards


def sum_usage(replies: Sequence[ParsedReply[Any]]) -> dict[str, int]:
    """Return the calls and tokens behind these replies, whichever run made the calls."""
    return {
        "calls": sum(reply.attempts for reply in replies),
        "prompt_tokens": sum(reply.usage.prompt_tokens for reply in replies),
        "completion_tokens": sum(reply.usage.completion_tokens for reply in replies),
    }
