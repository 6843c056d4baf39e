"""Does the judge answer the real prompts in the formats that they ask for? One tiny example through four dimensions.

    for check in await check_formats(params.judge, load_prompts()):
        print(check.dimensions, check.problem)     # ("faithfulness",) "the answer holds no verdict …"

Each prompt is sent once, so that the whole takes about eight calls for all judges together. Nothing is read from or
written to the ledger.
"""

import asyncio
from dataclasses import dataclass

from longreward.errors import JudgeError
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.circuit_breaker import EXPECTED_FORMATS
from longreward.judge.judge import TEMPLATES_BY_DIMENSION
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.check import CONFIG, RewardQuery, judge_query
from longreward.records import DIMENSIONS, Dimension, Verdict
from longreward.retrieval import Bm25Retriever
from longreward.reward.document import DocumentCache
from longreward.reward.faithfulness import NO_STATEMENT
from longreward.utils.concurrency import gather
from longreward.utils.token_spans import open_tokenizer


@dataclass(frozen=True)
class FormatCheck:
    """What came of one dimension. `problem` None: its replies could be read."""

    dimension: Dimension
    judge: str
    problem: str | None
    timed_out: bool
    """Whether the problem is only that no reply came in time."""
    expected: str
    """The formats that the dimension's prompts ask for."""


@dataclass(frozen=True)
class FormatReport:
    """All dimensions, in their order, and what the calls took."""

    checks: tuple[FormatCheck, ...]
    calls: int
    tokens: int

    @property
    def unreadable(self) -> tuple[FormatCheck, ...]:
        return tuple(check for check in self.checks if check.problem is not None)


async def check_formats(config: JudgeConfig, prompts: PromptSet, *, limit_s: float) -> FormatReport:
    """Asks each dimension's judge its own prompts, for at most `limit_s` seconds each.

    Never raises for what a judge does. Raises ConfigError where a key is missing.
    """
    once = {"max_attempts": 1, "max_retries": 0, "stop_after_unreadable": None, "mode": "live"}
    dimensions = {dimension: {**own, **once} for dimension, own in config.dimensions.items()}
    async with open_judge(config.model_copy(update={**once, "dimensions": dimensions}), ledger=None) as judge:
        checks = await gather(_check(judge, prompts, dimension, limit_s) for dimension in DIMENSIONS)
        figures = judge.metrics()
    tokens = figures["prompt_tokens"] + figures["completion_tokens"]
    return FormatReport(tuple(checks), int(figures["calls"]), int(tokens))


async def _check(judge: Judge, prompts: PromptSet, dimension: Dimension, limit_s: float) -> FormatCheck:
    timed_out = False
    try:
        async with asyncio.timeout(limit_s):
            problem = _problem(await _verdict(judge, prompts, dimension))
    except TimeoutError:
        problem, timed_out = f"no reply to its prompts within {limit_s:g} s", True
    except JudgeError as error:
        problem = str(error)
        timed_out = error.transient is not None and error.transient.timed_out
    templates = TEMPLATES_BY_DIMENSION[dimension]
    expected = "; ".join(EXPECTED_FORMATS[template] for template in templates)
    return FormatCheck(dimension, judge.name_for(templates[0]), problem, timed_out, expected)


async def _verdict(judge: Judge, prompts: PromptSet, dimension: Dimension) -> Verdict:
    library = DocumentCache(CONFIG, open_tokenizer(CONFIG.tokenizer), Bm25Retriever(), keep=1)
    return await judge_query(judge, prompts, library.open(CONTEXT), RewardQuery(CONTEXT, QUERY, RESPONSE, dimension))


def _problem(verdict: Verdict) -> str | None:
    """Why the replies could not be read; that the response states no fact is a reading too."""
    return None if verdict.score is not None or verdict.reason == NO_STATEMENT else verdict.reason


CONTEXT = (
    "Keld is a village on the river Osten. Ann Lee founded it in 1905, together with two of her brothers. The stone "
    "bridge was built in 1931 and replaced a ferry. Most of the 400 people who live there today work in the mill."
)
QUERY = "Who founded Keld, and when?"
RESPONSE = "Keld was founded by Ann Lee in 1905."
