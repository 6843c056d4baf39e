"""Check that the judge replies in the requested formats: the real prompts on one tiny example, in all dimensions.

    for check in (await check_formats(params.judge, load_prompts(), limit_s=60)).unreadable:
        print(check.dimension, check.problem)     # faithfulness the answer holds no verdict …

Each prompt is sent once, about eight calls in all, and once more with a reminder of the format where the reply is
unreadable. The ledger is neither read nor written.
"""

import asyncio
from dataclasses import dataclass

from longreward.errors import JudgeError
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.circuit_breaker import EXPECTED_FORMATS
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES, SUPPORT_LIST
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.cases import RewardQuery
from longreward.judge_validation.check import judge_query, open_document
from longreward.records import DIMENSIONS, Dimension
from longreward.reward.faithfulness import NO_STATEMENT
from longreward.utils.concurrency import gather

CONTEXT = (
    "Keld is a village on the river Osten. Ann Lee founded it in 1905, together with two of her brothers. The stone "
    "bridge was built in 1931 and replaced a ferry. Most of the 400 people who live there today work in the mill."
)
QUERY = "Who founded Keld, and when?"
RESPONSE = "Keld was founded by Ann Lee in 1905."


@dataclass(frozen=True)
class FormatCheck:
    """The result for one dimension. `problem` is None if its replies can be parsed."""

    dimension: Dimension
    judge: str
    problem: str | None
    timed_out: bool
    """Whether the only problem is that no reply came in time."""
    replied: bool
    """Whether the judge replied to the prompts, in whatever form."""
    expected: str
    """The formats that the dimension's prompts request."""


@dataclass(frozen=True)
class FormatReport:
    """The results of all dimensions, and the usage."""

    checks: tuple[FormatCheck, ...]
    calls: int
    tokens: int
    reminders: int
    """Replies that were unreadable at first."""

    @property
    def unreadable(self) -> tuple[FormatCheck, ...]:
        return tuple(check for check in self.checks if check.problem is not None)


async def check_formats(config: JudgeConfig, prompts: PromptSet, *, limit_s: float) -> FormatReport:
    """Send each dimension's prompts to its judge, for at most `limit_s` seconds per dimension.

    Problems of a judge are reported, not raised. Raises ConfigError if a key is missing.
    """
    # One reminder and no retries: a judge that needs more is a finding, and the doctor must not wait for hours.
    overrides = {"max_attempts": 2, "max_retries": 0, "stop_after_unreadable": None, "mode": "live"}
    once = config.map_judges(lambda judge: overrides)

    async def check(judge: Judge, dimension: Dimension) -> FormatCheck:
        timed_out, replied, problem = False, True, None
        query = RewardQuery(CONTEXT, QUERY, RESPONSE, dimension)
        try:
            async with asyncio.timeout(limit_s):
                verdict = await judge_query(judge, prompts, open_document(CONTEXT), query)
            # "The response states no fact" is wrong here, but in the requested format.
            if verdict.score is None and verdict.reason != NO_STATEMENT:
                problem, replied = verdict.reason, verdict.calls > 0
        except TimeoutError:
            problem, timed_out, replied = f"no verdict within {limit_s:g} s, the limit of this check", True, False
        except JudgeError as error:
            problem, replied = str(error), False
            timed_out = error.transient is not None and error.transient.timed_out
        templates = [name for name in DIMENSION_TEMPLATES[dimension] if name != SUPPORT_LIST]
        expected = "; ".join(EXPECTED_FORMATS.get(template, "the format in the prompt") for template in templates)
        return FormatCheck(dimension, judge.name_for(templates[-1]), problem, timed_out, replied, expected)

    async with open_judge(once, ledger=None) as judge:
        checks = await gather(check(judge, dimension) for dimension in DIMENSIONS)
        metrics = judge.metrics()
    tokens = metrics["prompt_tokens"] + metrics["completion_tokens"]
    return FormatReport(tuple(checks), int(metrics["calls"]), int(tokens), int(metrics["reminders"]))
