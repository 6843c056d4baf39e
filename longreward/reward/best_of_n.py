"""Best-of-n sampling: rank several responses to one query by their reward.

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
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from longreward.data.formats import document_id
from longreward.errors import ConfigError
from longreward.records import Example, Response, ScoredResponse
from longreward.reward.long_reward import LongReward, run_sync

if TYPE_CHECKING:
    from longreward.models.policy import Policy
    from longreward.models.sampling import SampleConfig
    from longreward.models.served_policy import ServedPolicy
    from longreward.reward.reward_model import RewardModel

    AnyPolicy: TypeAlias = Policy | ServedPolicy

P = ParamSpec("P")
T = TypeVar("T")


async def abest_of_n(
    *,
    context: str,
    query: str,
    responses: Sequence[Response | str] | None = None,
    policy: "AnyPolicy | None" = None,
    sampling: "SampleConfig | None" = None,
    reward: "LongReward | RewardModel | None" = None,
) -> tuple[ScoredResponse, ...]:
    """Return the scored responses, best first: `responses`, or `sampling.n` responses sampled from `policy`.

    `policy` is a loaded model (`load_policy`) or a served one (`served_policy`). `sampling` defaults to the paper's
    settings (10 responses at temperature 1), `reward` to the offline judge without a ledger. A reward model
    (`load_reward_model`) gives rewards without verdicts, on its own scale.

    Equal rewards keep the order of the responses; unscored responses come last. With `strategy: adaptive` only the
    first rank is certain. Raises ConfigError unless exactly one of responses and policy is given, PolicyError if the
    prompt does not fit, and the errors of the judge.
    """
    if (responses is None) == (policy is None):
        raise ConfigError("best_of_n takes either responses or a policy to sample them from")
    if responses is not None and not responses:
        raise ConfigError("best_of_n got an empty list of responses; pass at least one")
    # Sampling derives its random stream from this id, so that different prompts have different streams.
    example_id = document_id(f"{query}\n\n{context}")
    example = Example(id=example_id, document_id=example_id, context=context, query=query)
    if policy is not None:
        from longreward.models.sampling import SampleConfig, sample
        from longreward.models.served_policy import ServedPolicy, sample_served

        config = sampling or SampleConfig()
        if isinstance(policy, ServedPolicy):
            [responses] = await sample_served(policy, [example], config)
        else:
            # Generation blocks for seconds to minutes; in a thread, the event loop stays free.
            responses = await asyncio.to_thread(lambda: next(sample(policy, [example], config)))
    scored = await (reward or LongReward()).ascore_responses(example, responses or ())
    return rank_responses(scored.responses)


def _synchronous(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Return a blocking function with the same parameters."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_sync(function(*args, **kwargs))

    return call


best_of_n = _synchronous(abest_of_n)
"""`abest_of_n` for synchronous code; it blocks a running event loop."""


def rank_responses(responses: Sequence[ScoredResponse]) -> tuple[ScoredResponse, ...]:
    """Sort by reward, best first, unscored last, equal rewards in input order.

    Sorts by the upper bound, which is the reward if that is known: adaptive scoring ends when no other response can
    exceed the best.
    """
    return tuple(sorted(responses, key=lambda scored: -(scored.reward_bounds() or (-math.inf, -math.inf))[1]))
