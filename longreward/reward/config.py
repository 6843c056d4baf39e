"""Settings of scoring."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.judge.budget import BudgetConfig
from longreward.judge.prompt_manifest import SUPPORT_LIST
from longreward.judge.prompts import Parsing, PromptSet, load_prompts
from longreward.records import DIMENSIONS, Dimension, OptionalDimension
from longreward.retrieval.config import RetrieverConfig


class ScoreConfig(Config):
    """How responses are scored."""

    tokenizer: str = "simple"
    """Tokenizer that chunk sizes refer to: "simple" (built in), a tokenizer.json or its folder, or a hub id."""
    evidence_chunk_tokens: int = Field(128, ge=1)
    """Size of the chunks that evidence for statements is retrieved from (paper, section 3.1: 128)."""
    evidence_chunks: int = Field(5, ge=1)
    """Number of chunks that the judge sees per statement (paper, section 3.1: top 5)."""
    retriever: RetrieverConfig = RetrieverConfig()
    """How these chunks are retrieved."""
    extraction_chunk_tokens: int = Field(4096, ge=1)
    """Size of the parts that relevant information is extracted from (paper, section 3.1: 4,096)."""
    prompts_dir: Path | None = None
    """Folder with prompts that replace the built-in ones; the published prompts work unchanged."""
    prompts_manifest: Path | None = None
    """Manifest of the files in `prompts_dir` if the folder has no manifest.yaml."""
    parsing: Parsing = "strict"
    """How judge replies are parsed. `strict` accepts every form with one meaning (`[[8/10]]`, a last line `Rating: 8`,
    JSON); an unknown label or two different verdicts are requested again. `published` parses as the published code
    does: the last bracket counts, and a label without "fully" or "partially" means no support."""
    strategy: Literal["full", "adaptive", "none"] = "full"
    """`full`: every response gets all scores. `adaptive`: only the requests that each prompt's best and worst response
    need; pairs are the same, other responses have bounds instead of scores. `none`: no requests, for pair methods
    without scores. `evaluate` always scores in full."""
    optional_dimensions: tuple[OptionalDimension, ...] = ()
    """Dimensions besides those of the paper. `rubric`: the share of the items of a rubric that the response meets,
    given with the prompt or written by the judge; `citations`: precision and recall of the cited passages, for
    responses to numbered documents. They need the strategy `full`, and their weight in the reward is 1."""
    statements_per_call: int = Field(1, ge=1)
    """Statements of one response that the judge verifies with one request, from the passages of all of them. 1, as in
    the paper: each has a request of its own. More save tokens, and the judge sees more at once; needs the strategy
    `full` and `parsing: strict`. Statements without a readable verdict are verified again one by one."""
    no_statements: Literal["not_applicable", "zero"] = "not_applicable"
    """Faithfulness of a response without factual statements: no score (the response takes no part in pairs), or 0."""
    prompts_in_flight: int = Field(8, ge=1)
    """Prompts scored concurrently. More keep the judge busier but need more memory. `strategy: adaptive` uses four
    times as many because each prompt then sends few requests at a time."""
    shard_size: int = Field(50, ge=1)
    """Prompts per shard, the unit that is saved and retried."""
    budget: BudgetConfig = BudgetConfig()
    """Limits over all attempts to score the same input; the stage stops cleanly when one is reached."""

    @model_validator(mode="after")
    def _check_optional_dimensions(self) -> Self:
        if len(set(self.optional_dimensions)) < len(self.optional_dimensions):
            raise ValueError(f"optional_dimensions names one twice: {', '.join(self.optional_dimensions)}")
        if self.optional_dimensions and self.strategy == "adaptive":
            raise ValueError(
                "strategy is adaptive, which judges the dimensions of the paper only: set it to full, or remove "
                "optional_dimensions"
            )
        return self

    @model_validator(mode="after")
    def _check_statements_per_call(self) -> Self:
        if self.statements_per_call > 1 and (self.strategy == "adaptive" or self.parsing == "published"):
            reason = (
                "strategy is adaptive, which verifies only as many statements as the pair needs: set it to full"
                if self.strategy == "adaptive"
                else "parsing is published, and the published code has one statement per request: set it to strict"
            )
            raise ValueError(f"statements_per_call is {self.statements_per_call}, but {reason}, or set this to 1")
        return self

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions that responses are scored in."""
        return (*DIMENSIONS, *self.optional_dimensions)

    @property
    def support_templates(self) -> tuple[str, ...]:
        """The prompt templates that rate the support of statements."""
        return ("support",) if self.statements_per_call == 1 else (SUPPORT_LIST, "support")

    def load_prompts(self) -> PromptSet:
        """Load the prompts that these settings use; see `load_prompts`."""
        return load_prompts(
            self.prompts_dir,
            self.prompts_manifest,
            parsing=self.parsing,
            optional=self.optional_dimensions,
            statements_per_call=self.statements_per_call,
        )

    @property
    def prompts_at_once(self) -> int:
        """Number of prompts scored concurrently with this strategy."""
        return self.prompts_in_flight * (1 if self.strategy == "full" else 4)
