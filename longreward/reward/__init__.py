"""The reward: a judge scores a response to a query about a long document in four dimensions, each from 0 to 10.

Rubrics and citations are optional dimensions (`score.optional_dimensions`).
"""

from longreward.reward.adaptive import open_scorer
from longreward.reward.concurrent_scoring import score_examples
from longreward.reward.config import ScoreConfig
from longreward.reward.long_reward import LongReward
from longreward.reward.scorer import ScoredExample, Scorer

__all__ = ["LongReward", "ScoreConfig", "ScoredExample", "Scorer", "open_scorer", "score_examples"]
