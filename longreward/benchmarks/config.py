"""Settings of the stage `benchmark`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from longreward.benchmarks.infinitebench.benchmark import MAX_PROMPT_TOKENS as INFINITEBENCH_PROMPT_TOKENS
from longreward.benchmarks.infinitebench.metrics import TaskName as InfiniteTask
from longreward.benchmarks.longbench.sets import EXTENDED_SETS, JUDGED_SETS, SetName
from longreward.benchmarks.longbench_v2 import MAX_PROMPT_TOKENS, TEMPERATURE
from longreward.benchmarks.registry import BenchmarkName
from longreward.benchmarks.ruler.tasks import CASES, LENGTHS, SEED, THRESHOLD, TaskName
from longreward.benchmarks.types import LONGREWARD_TEMPERATURE
from longreward.config import Config
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge.budget import BudgetConfig
from longreward.judge.prompts import Parsing


class LongBenchConfig(Config):
    """LongBench with LongReward's protocol: twelve sets, its templates and its judge."""

    sets: tuple[SetName, ...] | None = Field(default=None, min_length=1)
    """Sets to run; null: all twelve."""

    temperature: float = Field(default=LONGREWARD_TEMPERATURE, ge=0)
    """Temperature of the answers (LongReward's code: 1.0)."""

    @field_validator("sets")
    @classmethod
    def _check_sets(cls, sets: tuple[SetName, ...] | None) -> tuple[SetName, ...] | None:
        return _check_names(sets, JUDGED_SETS, "benchmark.longbench_official runs the others")


class LongBenchOfficialConfig(Config):
    """LongBench by its authors' protocol: up to 21 sets, their templates, limits and metrics, and no judge."""

    sets: tuple[SetName, ...] | None = Field(default=None, min_length=1)
    """Sets to run; null: all 21, with `extended` the thirteen of LongBench-E."""

    extended: bool = False
    """LongBench-E: sets with evenly distributed lengths, and metrics by length."""

    temperature: float = Field(default=0.0, ge=0)
    """Temperature of the answers (LongBench: greedy)."""

    chat_template: Literal["published", "always"] = "published"
    """`published`: the few-shot and code sets are continued without the model's chat template, as LongBench does."""

    @model_validator(mode="after")
    def _check_sets(self) -> Self:
        if self.extended:
            _check_names(self.sets, EXTENDED_SETS, "LongBench-E has no others")
        return self


class FactScoreConfig(Config):
    """FactScore's length penalty and abstention."""

    length_penalty: int = Field(default=10, ge=0)
    """FactScore's gamma: the score of an answer with fewer facts is multiplied by exp(1 - gamma / facts); 0: never."""

    abstention: Literal["none", "generic"] = "none"
    """`generic`: an answer that starts with "I'm sorry" or contains "provide more" has no facts (FactScore's rule)."""


class MtBenchConfig(Config):
    """MT-Bench's reference answers."""

    references: str | None = None
    """Reference answers in FastChat's format, such as a corrected file; null: the published ones with `files`, of which
    13 of 30 are wrong (FastChat pull request 3158), otherwise the built-in ones."""


class RulerConfig(Config):
    """RULER: generated tasks of exact lengths."""

    tasks: tuple[TaskName, ...] | None = Field(default=None, min_length=1)
    """Tasks to run; null: all 13, without `qa_1` and `qa_2` if their files are missing."""

    lengths: tuple[Annotated[int, Field(ge=128)], ...] = Field(default=LENGTHS, min_length=1)
    """Tokens of prompt and answer together, each at most the model's window."""

    cases: int = Field(default=CASES, ge=1)
    """Cases for each task and length."""

    threshold: float = Field(default=THRESHOLD, ge=0, le=100)
    """The effective length is the largest up to which no mean score is below this (RULER: Llama 2 at 4,096 tokens)."""

    chat_template: Literal["always", "never"] = "always"
    """`never`: the model continues the prompt as it is, for a base model."""

    temperature: float = Field(default=0.0, ge=0)
    """Temperature of the answers (RULER: greedy)."""

    seed: int = SEED
    """Seed of the cases."""


class LongBenchV2Config(Config):
    """LongBench v2: multiple-choice questions about long texts."""

    chain_of_thought: bool = False
    """Two requests for each case: the model reasons first, and then chooses without the text."""

    temperature: float = Field(default=TEMPERATURE, ge=0)
    """Temperature of the answers (LongBench v2: 0.1)."""

    max_prompt_tokens: int = Field(default=MAX_PROMPT_TOKENS, ge=128)
    """A longer prompt keeps its first and last halves (LongBench v2: 120,000 tokens)."""


class InfiniteBenchConfig(Config):
    """∞Bench: ten tasks with contexts of about 100,000 tokens and more."""

    tasks: tuple[InfiniteTask, ...] | None = Field(default=None, min_length=1)
    """Tasks to run; null: all ten."""

    chat_template: Literal["always", "never"] = "always"
    """`never`: the model continues the prompts for base models as they are, with the published limits of answers."""

    temperature: float = Field(default=0.0, ge=0)
    """Temperature of the answers."""

    max_prompt_tokens: int = Field(default=INFINITEBENCH_PROMPT_TOKENS, ge=128)
    """A longer prompt keeps its first and last halves (∞Bench: 127,000 tokens for GPT-4)."""


def _check_names(
    sets: tuple[SetName, ...] | None, allowed: Sequence[SetName], advice: str
) -> tuple[SetName, ...] | None:
    if sets is not None and (others := [name for name in sets if name not in allowed]):
        raise ValueError(f"{', '.join(others)} cannot run here; choose from {', '.join(allowed)}; {advice}")
    return sets


class BenchmarkConfig(Config):
    """How the SFT model and the trained model are evaluated on public benchmarks."""

    run: tuple[BenchmarkName, ...] = ("longbench_chat", "mt_bench")
    """Benchmarks to run, in this order."""

    files: str | None = None
    """Folder with the files of `longreward benchmarks fetch`; null: small built-in sets of the same formats, which only
    show that everything works."""

    facts: str | None = None
    """Questions for `factscore`, a jsonl file such as data/prepared/heldout.jsonl; null: the built-in questions."""

    longbench: LongBenchConfig = LongBenchConfig()
    """Settings of the benchmark `longbench`."""

    longbench_official: LongBenchOfficialConfig = LongBenchOfficialConfig()
    """Settings of the benchmark `longbench_official`."""

    factscore: FactScoreConfig = FactScoreConfig()
    """Settings of the benchmark `factscore`."""

    ruler: RulerConfig = RulerConfig()
    """Settings of the benchmark `ruler`."""

    longbench_v2: LongBenchV2Config = LongBenchV2Config()
    """Settings of the benchmark `longbench_v2`."""

    infinitebench: InfiniteBenchConfig = InfiniteBenchConfig()
    """Settings of the benchmark `infinitebench`."""

    mt_bench: MtBenchConfig = MtBenchConfig()
    """Settings of the benchmark `mt_bench`."""

    models: tuple[Literal["sft", "dpo"], ...] = ("sft", "dpo")
    """Models to evaluate."""

    pairwise: bool = False
    """Whether MT-Bench's judge also compares the trained model's answers with the SFT model's, in both orders: four
    more requests per case. Needs both models."""

    judge: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the section `judge`, for example `{"model": "gpt-4o-2024-05-13"}`, the paper's judge. Each benchmark
    prescribes temperatures and attempts."""

    parsing: Parsing = "strict"
    """How the judge's verdicts are parsed. `strict`: only the requested format, everything else is unscored;
    `published`: as each benchmark's published code does, to compare with published scores."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Lowers each benchmark's own limit on the answers' tokens; null: the benchmarks' own limits."""

    shard_size: int = Field(default=40, ge=1)
    """Cases per shard; completed shards are kept when the stage is interrupted."""

    bootstrap_resamples: int = Field(default=2000, ge=100)
    """Resamples of the cases per confidence interval."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence level of the intervals; 1 minus it is the significance level of the tests."""

    seed: int = 0
    """Seed of the intervals; the benchmarks prescribe the seeds of the answers."""

    budget: BudgetConfig = BudgetConfig()
    """Limit on the judge's usage, over all attempts of one run; at the limit the stage stops cleanly."""

    @model_validator(mode="after")
    def _check_pairwise(self) -> Self:
        if self.pairwise and self.models != ("sft", "dpo"):
            raise ValueError("pairwise compares the trained model with the SFT model; set models to [sft, dpo]")
        return self

    @property
    def interval_options(self) -> IntervalOptions:
        """The options of the confidence intervals."""
        return IntervalOptions(self.bootstrap_resamples, self.confidence, self.seed)
