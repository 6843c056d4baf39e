"""Settings of the stage `evaluate`, and the rule by which the trained model becomes the champion."""

from typing import Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge.budget import BudgetConfig
from longreward.records import DIMENSIONS, PaperDimension

Measure = Literal["recall", "unsupported", "exact", "reward", PaperDimension, "tokens", "short"]
BUILTIN, BUILTIN_COUNT = "builtin", 500
GOLD_MEASURES: tuple[Measure, ...] = ("recall", "unsupported", "exact")
JUDGED_MEASURES: tuple[Measure, ...] = ("reward", *DIMENSIONS)
MEASURES: tuple[Measure, ...] = (*GOLD_MEASURES, *JUDGED_MEASURES, "tokens", "short")


class ChampionRule(Config):
    """The trained model gets the alias `champion` if it is better than the SFT model by this rule, and also better than
    the previous champion on held-out prompts that both answered. A model that is no better than the champion replaces
    it with a probability of at most (1 - evaluate.confidence) / 2, which is 2.5 %."""

    measure: Measure = "reward"
    """Prefer a gold measure if the data has one: a judge's score can rise while answers get worse."""

    temperature: float = Field(default=1.0, ge=0)
    """Temperature at which the models are compared; one of `evaluate.temperatures`."""

    min_difference: float = Field(default=0.0, ge=0)
    """The improvement must be larger than this, in the measure's units."""

    interval_excludes_zero: bool = True
    """Whether the difference must be significant: the interval excludes zero, and the p-value of the paired test is at
    most 1 - evaluate.confidence."""


class ShortMeasureConfig(Config):
    """Short instructions without a document, answered greedily by both models."""

    source: str | None = None
    """`builtin` (instructions that `train.short` does not use), or a file of questions with answers under data/raw;
    null: none."""
    match: Literal["equal", "contains"] = "equal"
    """A response is correct if it equals an answer, or if it contains one and no known wrong answer. `contains` suits
    models that answer in sentences, which no list of answers can foresee."""
    count: int = Field(default=180, ge=1)
    """Number of instructions, from the start; there are 500 built-in ones."""

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        if self.source == BUILTIN and self.count > BUILTIN_COUNT:
            raise ValueError(f"count is {self.count}, but there are {BUILTIN_COUNT} built-in instructions: lower it")
        return self


class EvaluateConfig(Config):
    """How the held-out prompts are answered and the models compared."""

    temperatures: tuple[float, ...] = (1.0, 0.5, 0.0)
    """Sampling temperatures; 0 is greedy. 1, 0.5 and 0 together distinguish learning from mere sharpening."""

    samples: int = Field(default=4, ge=1)
    """Answers per prompt at temperatures above 0; one if greedy."""

    gold: str | None = None
    """Gold facts of the built-in or the natural corpus, a jsonl file under data/raw; null if the data has none."""

    bootstrap_resamples: int = Field(default=2000, ge=100)
    """Resamples of the held-out documents per confidence interval."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence level of the intervals; 1 minus it is the significance level of the tests."""

    short: ShortMeasureConfig = ShortMeasureConfig()
    """Measures the effect of training on long prompts on short ones."""

    champion: ChampionRule = ChampionRule()
    """When the trained model becomes the champion."""

    registered_model: str = "longreward-policy"
    """Name in MLflow's model registry."""

    seed: int = 0
    """Seed of the answers and of the intervals."""

    budget: BudgetConfig = BudgetConfig()
    """Limit on the judge's usage, over all attempts of one evaluation; at the limit the stage stops cleanly."""

    @property
    def interval_options(self) -> IntervalOptions:
        """The options of the confidence intervals."""
        return IntervalOptions(self.bootstrap_resamples, self.confidence, self.seed)
