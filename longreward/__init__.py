"""LongReward (arXiv 2410.21252): rewards for long-context responses, and the training that uses them.

>>> from longreward import LongReward
>>> card = LongReward().score(context=document, query=question, response=answer)
>>> card.reward
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longreward.reward import LongReward

__all__ = ["LongReward"]


def __getattr__(name: str) -> Any:
    if name == "LongReward":
        from longreward.reward import LongReward

        return LongReward
    raise AttributeError(f"module 'longreward' has no attribute {name!r}")
