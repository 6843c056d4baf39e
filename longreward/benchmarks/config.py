"""Which benchmarks are run, on which files, and with which judge."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from longreward.benchmarks.types import IntervalOptions, JudgeOptions
from longreward.config import Config
from longreward.judge.budget import BudgetConfig
from longreward.judge.config import JudgeConfig

BenchmarkName = Literal["longbench_chat", "longbench", "mt_bench", "alpaca_eval", "factscore"]


class BenchmarkConfig(Config):
    """How the SFT model and the trained one are put through public benchmarks."""

    run: tuple[BenchmarkName, ...] = ("longbench_chat", "mt_bench")
    """Which benchmarks, in this order."""

    files: str | None = None
    """A folder that `longreward benchmarks fetch` filled; null: the small built-in sets of the same formats, whose
    scores say nothing of a model beyond that everything works."""

    facts: str | None = None
    """Questions about documents for `factscore`, a jsonl file such as data/prepared/heldout.jsonl; null: the built-in
    ones. It has no published files."""

    models: tuple[Literal["sft", "dpo"], ...] = ("sft", "dpo")
    """Which models answer."""

    pairwise: bool = False
    """Whether MT-Bench's judge also compares the trained model's answers with the SFT model's, in both orders: four
    questions more a case. Needs both models."""

    judge: dict[str, Any] = Field(default_factory=dict)
    """Settings of the judge that differ from the section `judge`, as `{"model": "gpt-4o-2024-05-13"}`, the paper's;
    temperatures and tries are each benchmark's own."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, where that is less than the benchmark's own limit; null: the benchmark's own."""

    shard_size: int = Field(default=40, ge=1)
    """Cases whose answers, and then verdicts, are kept together when the stage is stopped."""

    bootstrap_resamples: int = Field(default=2000, ge=100)
    """Random weightings of the cases for each interval."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the intervals; 1 minus it is the level of the tests."""

    seed: int = 0
    """Seed of the intervals; answers have the benchmarks' own seeds."""

    budget: BudgetConfig = BudgetConfig()
    """What the judge may be asked for, over all tries of one run; at it, the stage stops cleanly."""

    @model_validator(mode="after")
    def _pairs_have_two(self) -> Self:
        if self.pairwise and self.models != ("sft", "dpo"):
            raise ValueError("pairwise compares the trained model with the SFT model; set models to [sft, dpo]")
        return self

    @property
    def intervals(self) -> IntervalOptions:
        """How intervals are computed."""
        return IntervalOptions(self.bootstrap_resamples, self.confidence, self.seed)


def judge_config(config: BenchmarkConfig, judge: JudgeConfig, judging: JudgeOptions) -> JudgeConfig:
    """The judge of one benchmark: the section `judge` with what differs, asked as the benchmark's protocol says.

    ConfigError for a setting that a judge does not have.
    """
    base = judge.with_overrides(config.judge, section="benchmark.judge")
    return base.model_copy(
        update={
            "dimensions": {},
            "first_temperature": judging.temperature,
            "retry_temperature": judging.retry_temperature,
            "max_attempts": judging.attempts,
            "stop_after_unreadable": None,  # the protocols say what an unreadable verdict counts
        }
    )
