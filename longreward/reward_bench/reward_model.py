"""A reward model's figures for labelled items, on its own scale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.reward_bench.agreement import Rewards
from longreward.reward_bench.items import Item, as_records

if TYPE_CHECKING:
    from longreward.pairs.config import SrmConfig
    from longreward.pairs.srm import RewardModel


@dataclass(frozen=True)
class SrmRewards:
    """Which model, and what it gave each item's responses; None where query and response do not fit its window."""

    model: str
    rewards: list[Rewards]


def rank_items(
    model: "RewardModel", items: Sequence[Item], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> SrmRewards:
    """In the order of the items; `progress(done, all)` counts responses."""
    ranked = model.rank(map(as_records, items), progress=progress)
    return SrmRewards(model.name, [[one.reward for one in each.rewards] for each in ranked])


def open_reward_model(config: "SrmConfig", name: str, *, state: Path) -> "RewardModel":
    """The model of that name, else of `config`, else the tiny one, made in the state folder where it is not there.

    PolicyError where it cannot be loaded or is no reward model.
    """
    from longreward.pairs.srm import load_reward_model
    from longreward.pairs.tiny_reward_model import tiny_reward_model

    if name:
        config = config.model_copy(update={"model": name})
    made = None if config.model else tiny_reward_model(config.tiny, state / "reward-models")
    return load_reward_model(config, made)
