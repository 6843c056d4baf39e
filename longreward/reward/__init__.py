"""The reward: four scores from 0 to 10 that a judge gives a response to a query about a long document."""

from longreward.reward.config import ScoreConfig
from longreward.reward.long_reward import LongReward
from longreward.reward.scorer import ScoredExample, Scorer, score_examples

__all__ = ["LongReward", "ScoreConfig", "ScoredExample", "Scorer", "score_examples"]
