"""Check that the judge replies in the requested formats: the real prompts on one tiny example, in all dimensions.

    for check in (await check_formats(params.judge, load_prompts(), limit_s=60)).unreadable:
        print(check.subject, check.problem)     # faithfulness the answer holds no verdict …

Each prompt is sent once, about eight calls in all, and once more where the reply is unreadable: with a reminder of the
format, or as before if the reply repeats itself. With `score.statements_per_call` above 1, so is the prompt for several
statements. The ledger is neither read nor written.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from longreward.errors import JudgeError
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.circuit_breaker import EXPECTED_FORMATS
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES, SUPPORT_LIST
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.cases import RewardQuery
from longreward.judge_validation.check import dimension_input, judge_query, open_document
from longreward.records import DIMENSIONS, Dimension
from longreward.reward.faithfulness import NO_STATEMENT
from longreward.reward.statement_groups import request_supports
from longreward.utils.concurrency import gather

CONTEXT = (
    "Keld is a village on the river Osten. Ann Lee founded it in 1905, together with two of her brothers. The stone "
    "bridge was built in 1931 and replaced a ferry. Most of the 400 people who live there today work in the mill."
)
QUERY = "Who founded Keld, and when?"
RESPONSE = "Keld was founded by Ann Lee in 1905."
STATEMENTS = (
    "Keld was founded by Ann Lee.",
    "Keld was founded in 1931.",
    "The stone bridge replaced a ferry.",
    "Most of the people of Keld work in the mill.",
)
STATEMENT_LIST = "several statements per request"


@dataclass(frozen=True)
class FormatCheck:
    """The result for one dimension, or for several statements per request. `problem` is None if it was readable."""

    subject: str
    judge: str
    problem: str | None
    timed_out: bool
    """Whether the only problem is that no reply came in time."""
    replied: bool
    """Whether the judge replied to the prompts, in whatever form."""
    expected: str
    """The formats that the prompts request."""
    missing_lines: int = 0
    """Statements without a line of their own in an otherwise readable list."""


class _Outcome(NamedTuple):
    """What a request resulted in: the problem, if any, whether the judge replied, and `missing_lines`."""

    problem: str | None
    replied: bool
    missing_lines: int = 0


@dataclass(frozen=True)
class FormatReport:
    """The results of all checks, and the usage."""

    checks: tuple[FormatCheck, ...]
    calls: int
    tokens: int
    reminders: int
    """Replies that were unreadable at first."""

    @property
    def unreadable(self) -> tuple[FormatCheck, ...]:
        return tuple(check for check in self.checks if check.problem is not None)


async def check_formats(
    config: JudgeConfig, prompts: PromptSet, *, statements_per_call: int = 1, limit_s: float
) -> FormatReport:
    """Send each dimension's prompts to its judge, for at most `limit_s` seconds per dimension.

    `prompts` include that for several statements if `statements_per_call` is above 1.

    Problems of a judge are reported, not raised. Raises ConfigError if a key is missing.
    """
    # One reminder and no retries: a judge that needs more is a finding, and the doctor must not wait for hours.
    overrides = {"max_attempts": 2, "max_retries": 0, "stop_after_unreadable": None, "mode": "live"}
    once = config.map_judges(lambda judge: overrides)

    async def check(judge: Judge, subject: str, templates: Sequence[str], request: Awaitable[_Outcome]) -> FormatCheck:
        timed_out = False
        try:
            async with asyncio.timeout(limit_s):
                outcome = await request
        except TimeoutError:
            outcome, timed_out = _Outcome(f"no verdict within {limit_s:g} s, the limit of this check", False), True
        except JudgeError as error:
            outcome = _Outcome(str(error), False)
            timed_out = error.transient is not None and error.transient.timed_out
        expected = "; ".join(EXPECTED_FORMATS.get(template, "the format in the prompt") for template in templates)
        return FormatCheck(
            subject,
            judge.name_for(templates[-1]),
            outcome.problem,
            timed_out,
            outcome.replied,
            expected,
            outcome.missing_lines,
        )

    async with open_judge(once, ledger=None) as judge:
        checks = [
            check(judge, dimension, own_templates(dimension), request_verdict(judge, prompts, dimension))
            for dimension in DIMENSIONS
        ]
        if statements_per_call > 1:
            statements = STATEMENTS[:statements_per_call]
            checks.append(check(judge, STATEMENT_LIST, [SUPPORT_LIST], request_list(judge, prompts, statements)))
        results = await gather(checks)
        metrics = judge.metrics()
    tokens = metrics["prompt_tokens"] + metrics["completion_tokens"]
    return FormatReport(tuple(results), int(metrics["calls"]), int(tokens), int(metrics["reminders"]))


def own_templates(dimension: Dimension) -> list[str]:
    """Return the templates of a dimension without that for several statements, which is checked by itself."""
    return [name for name in DIMENSION_TEMPLATES[dimension] if name != SUPPORT_LIST]


async def request_verdict(judge: Judge, prompts: PromptSet, dimension: Dimension) -> _Outcome:
    """Judge the example in one dimension."""
    query = RewardQuery(CONTEXT, QUERY, RESPONSE, dimension)
    verdict = await judge_query(judge, prompts, open_document(CONTEXT), query)
    # "The response states no fact" is wrong here, but in the requested format.
    if verdict.score is not None or verdict.reason == NO_STATEMENT:
        return _Outcome(None, True)
    return _Outcome(verdict.reason, verdict.calls > 0)


async def request_list(judge: Judge, prompts: PromptSet, statements: Sequence[str]) -> _Outcome:
    """Verify the statements with one request; the first judge of a panel without any readable line is the problem."""
    document = open_document(CONTEXT)
    item = dimension_input(judge, prompts, document, RewardQuery(CONTEXT, QUERY, RESPONSE, "faithfulness"))
    evidence = await document.evidence(statements, item.config.evidence_chunks, QUERY)
    group = await request_supports(item, statements, evidence)
    problem, missing = None, 0
    for replies in zip(*group.replies, strict=True):  # of one judge, for each statement
        unreadable = [reply for reply in replies if reply.value is None]
        if len(unreadable) < len(replies):
            missing += len(unreadable)
        else:
            name = f"{unreadable[0].judge}: " if len(group.replies[0]) > 1 else ""  # of the judge of a panel
            problem = problem or f"{name}{unreadable[0].reason}"
    return _Outcome(problem, group.is_answered, missing)
