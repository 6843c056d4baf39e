"""LongReward (arXiv 2410.21252): rewards for long-context responses, and the training that uses them.

>>> from longreward import LongReward, best_of_n
>>> scored = LongReward().score(context=document, query=question, response=answer)
>>> scored.reward
>>> best, *others = best_of_n(context=document, query=question, responses=answers)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longreward.reward import LongReward
    from longreward.reward.best_of_n import abest_of_n, best_of_n
    from longreward.reward.online import OnlineReward

__all__ = ["LongReward", "OnlineReward", "abest_of_n", "best_of_n"]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'longreward' has no attribute {name!r}")
    return getattr(import_module(module), name)


_MODULES = {
    "LongReward": "longreward.reward",
    "OnlineReward": "longreward.reward.online",
    "abest_of_n": "longreward.reward.best_of_n",
    "best_of_n": "longreward.reward.best_of_n",
}
