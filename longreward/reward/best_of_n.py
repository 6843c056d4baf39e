"""Best of n at inference: several answers to one question, the one with the highest reward first.

>>> from longreward import best_of_n
>>> ranked = best_of_n(
...     context="Keld was founded in 1905 by Ann Lee.",
...     query="Who founded Keld?",
...     responses=["Tom Ray founded Keld.", "Ann Lee founded Keld."],
... )
>>> ranked[0].response.text
'Ann Lee founded Keld.'
"""

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from longreward.data.formats import document_id
from longreward.errors import ConfigError
from longreward.records import Example, Response, ScoredResponse
from longreward.reward.long_reward import LongReward, run_sync

if TYPE_CHECKING:
    from longreward.models.policy import Policy
    from longreward.models.sampling import SampleConfig
    from longreward.models.served_policy import ServedPolicy

    Drawn: TypeAlias = Policy | ServedPolicy


def best_of_n(
    *,
    context: str,
    query: str,
    responses: Sequence[Response | str] | None = None,
    policy: "Drawn | None" = None,
    sampling: "SampleConfig | None" = None,
    reward: LongReward | None = None,
) -> tuple[ScoredResponse, ...]:
    """The responses with their verdicts, best first; see `abest_of_n`, to be awaited inside a running event loop."""
    asked = abest_of_n(
        context=context, query=query, responses=responses, policy=policy, sampling=sampling, reward=reward
    )
    return run_sync(asked)


async def abest_of_n(
    *,
    context: str,
    query: str,
    responses: Sequence[Response | str] | None = None,
    policy: "Drawn | None" = None,
    sampling: "SampleConfig | None" = None,
    reward: LongReward | None = None,
) -> tuple[ScoredResponse, ...]:
    """The responses with their verdicts, best first: those given, or `sampling.n` drawn from `policy`.

    `policy` is a loaded model (`load_policy`) or one at a server (`served_policy`); `sampling` is the paper's unless
    given (10 at temperature 1). `reward` says who judges and where answers are kept (the offline judge, nowhere).

    Equal rewards keep the order of the responses; those without a reward come last. With `strategy: extremes` only the
    first is certain to stand in its place. Raises ConfigError unless there are responses or else a policy, PolicyError
    where the prompt does not fit, and what the judge raises.
    """
    if (responses is None) == (policy is None):
        raise ConfigError("best_of_n takes responses or a policy that draws them, one of the two")
    if responses is not None and not responses:
        raise ConfigError("best_of_n got an empty list of responses; give one or more")
    name = document_id(f"{query}\n\n{context}")  # a draw depends on it: other prompts have other random streams
    example = Example(id=name, document_id=name, context=context, query=query)
    given = responses if responses is not None else await _draw(policy, example, sampling)
    scored = await (reward or LongReward()).ascore_responses(example, given)
    return rank_responses(scored.responses)


def rank_responses(responses: Sequence[ScoredResponse]) -> tuple[ScoredResponse, ...]:
    """Best first, unscored last, equals as they come.

    By the most that each can still reach, which is the reward where that is known: the strategy `extremes` goes on
    until nobody else can reach the best.
    """
    return tuple(sorted(responses, key=lambda scored: -(scored.bounds() or (-math.inf, -math.inf))[1]))


async def _draw(policy: "Drawn | None", example: Example, sampling: "SampleConfig | None") -> list[Response]:
    from longreward.models.sampling import SampleConfig, sample
    from longreward.models.served_policy import ServedPolicy, sample_served

    assert policy is not None, "checked by the caller"
    config = sampling or SampleConfig()
    if isinstance(policy, ServedPolicy):
        [drawn] = await sample_served(policy, [example], config)
        return drawn
    return await asyncio.to_thread(lambda: next(sample(policy, [example], config)))
