"""What `evaluate` asks of each model, and the rule by which the trained one becomes the champion."""

from typing import Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.judge.budget import BudgetConfig

Measure = Literal[
    "recall",
    "unsupported",
    "exact",
    "reward",
    "helpfulness",
    "logicality",
    "faithfulness",
    "completeness",
    "tokens",
    "short",
]
BUILTIN, MOST_BUILTIN = "builtin", 500
GOLD_MEASURES: tuple[Measure, ...] = ("recall", "unsupported", "exact")
JUDGED_MEASURES: tuple[Measure, ...] = ("reward", "helpfulness", "logicality", "faithfulness", "completeness")
MEASURES: tuple[Measure, ...] = (*GOLD_MEASURES, *JUDGED_MEASURES, "tokens", "short")


class ChampionRule(Config):
    """The trained model takes the alias `champion` where it beats the SFT model by this rule, and also the champion
    before, on held-out prompts that both answered. A model that is no better than the champion takes it with a
    probability of at most (1 - evaluate.confidence) / 2, which is 2.5 %."""

    measure: Measure = "reward"
    """Prefer a gold measure where the data has one: a judge's own score can rise while answers get worse."""

    temperature: float = Field(default=1.0, ge=0)
    """The decoding at which the two are compared; one of `evaluate.temperatures`."""

    min_difference: float = Field(default=0.0, ge=0)
    """Least improvement, in the measure's own units."""

    interval_excludes_zero: bool = True
    """Whether chance must be ruled out: the interval of the difference excludes zero, and the p-value of the paired
    test is at most 1 - evaluate.confidence."""


class ShortMeasureConfig(Config):
    """Short instructions, without a document, that both models answer greedily."""

    source: str | None = None
    """`builtin`, those held out of `train.short`'s, or a file of questions with answers under data/raw; null: none are
    asked."""
    count: int = Field(default=180, ge=1)
    """How many, from the first on; of the built-in ones there are 500."""

    @model_validator(mode="after")
    def _are_there(self) -> Self:
        if self.source == BUILTIN and self.count > MOST_BUILTIN:
            raise ValueError(f"count is {self.count}, and {MOST_BUILTIN} built-in instructions are held out: lower it")
        return self


class EvaluateConfig(Config):
    """How the held-out prompts are answered and compared."""

    temperatures: tuple[float, ...] = (1.0, 0.5, 0.0)
    """Decodings; 0 is greedy. 1, 0.5 and 0 together tell learning from mere sharpening."""

    samples: int = Field(default=4, ge=1)
    """Answers a prompt at temperatures above 0; greedy gives one."""

    gold: str | None = None
    """Gold facts of the built-in corpus, a jsonl file under data/raw; None where the data has none."""

    bootstrap_resamples: int = Field(default=2000, ge=100)
    """Random weightings of the held-out documents for each interval."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the intervals; 1 minus it is the level of the tests."""

    short: ShortMeasureConfig = ShortMeasureConfig()
    """What training on long prompts does to short ones."""

    champion: ChampionRule = ChampionRule()
    """When the trained model is named champion."""

    registered_model: str = "longreward-policy"
    """Name of the model in MLflow's registry."""

    seed: int = 0
    """Seed of the answers and of the intervals."""

    budget: BudgetConfig = BudgetConfig()
    """What the judge may be asked for, over all tries of one evaluation; at it, the stage stops cleanly."""
