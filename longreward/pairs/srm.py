"""SRM (paper, section 4.1): pairs by the rewards of a short-context reward model."""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from longreward.config import Config
from longreward.pairs.config import SelectionConfig
from longreward.pairs.outcomes import Outcome, sampling_order
from longreward.pairs.selection import select_by_reward
from longreward.records import Bounds, Example, Response
from longreward.reward.reward_model import RankedResponses, RewardModelConfig


class TinyRewardConfig(Config):
    """The tiny reward model of the built-in example project, trained with TRL's RewardTrainer on short preferences."""

    base: str = "models/tiny-base"
    """Folder of a causal language model, which gets a new reward head."""
    pairs: int = Field(default=400, ge=8)
    """Number of short preferences to train on."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over them."""
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    batch_size: int = Field(default=16, ge=1)
    """Preferences per update."""
    seed: int = 0
    """Seed of the head's initial weights and of the data order."""


class SrmConfig(RewardModelConfig):
    """The reward model of `pair.method: srm`; not used by other methods."""

    section: ClassVar[str] = "pair.srm"
    min_margin: float = Field(default=0.0, ge=0)
    """Minimum difference of the two rewards, on the model's own scale. A tie never makes a pair."""
    tiny: TinyRewardConfig = TinyRewardConfig()
    """Training of the tiny model, if `model` is null."""


def srm_pair(
    config: SelectionConfig,
    example: Example,
    responses: Iterable[Response],
    ranked: RankedResponses | None,
    *,
    min_margin: float = 0.0,
) -> Outcome:
    """Select the pair by the model's rewards."""
    rewards = {reward.response_id: reward.reward for reward in ranked.rewards} if ranked else {}
    sampled = sampling_order(config, responses)
    bounds: list[Bounds | None] = [
        None if (reward := rewards.get(response.id)) is None else (reward, reward) for response in sampled
    ]
    return select_by_reward(config, example, sampled, bounds, method="srm", min_margin=min_margin)
