"""What can be set about scoring."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from longreward.config import Config
from longreward.judge.budget import BudgetConfig
from longreward.judge.prompts import Parsing
from longreward.retrieval.config import RetrieverConfig


class ScoreConfig(Config):
    """The section `score` of params.yaml."""

    tokenizer: str = "simple"
    """What chunk sizes are counted in: "simple" (built in), a path to a tokenizer.json or its folder, or a hub id."""
    evidence_chunk_tokens: int = Field(128, ge=1)
    """Size of the chunks that statements are looked up in (paper, section 3.1: 128)."""
    evidence_chunks: int = Field(5, ge=1)
    """Chunks shown to the judge for one statement (paper, section 3.1: top 5)."""
    retriever: RetrieverConfig = RetrieverConfig()
    """What finds these chunks."""
    extraction_chunk_tokens: int = Field(4096, ge=1)
    """Size of the parts that relevant information is extracted from (paper, section 3.1: 4,096)."""
    prompts_dir: Path | None = None
    """A folder of prompts in place of the built-in ones; the published prompts work unchanged."""
    prompts_manifest: Path | None = None
    """Describes the files in `prompts_dir` where the folder has no manifest.yaml of its own."""
    parsing: Parsing = "strict"
    """How the judge's replies are parsed. `strict`: every form with one meaning is accepted (`[[8/10]]`, a last line
    `Rating: 8`, JSON); an unknown label or two different verdicts are asked again. `published`: as the published code
    does, where the last bracket counts and a word other than "fully" and "partially" in it means no support."""
    strategy: Literal["full", "extremes", "none"] = "full"
    """`full`: every response gets all four scores. `extremes`: only what it takes to know each prompt's best and worst;
    the pairs are the same, the other responses have bounds in place of scores. `none`: nothing is asked, for a
    `pair.method` that looks at no scores. `evaluate` always scores in full."""
    no_statements: Literal["not_applicable", "zero"] = "not_applicable"
    """What faithfulness is for a response without a factual statement: no score (it takes no part), or 0."""
    prompts_in_flight: int = Field(8, ge=1)
    """Prompts that are scored at once; enough to keep the judge busy, few enough to keep memory small. Four times as
    many under `strategy: extremes`, where a prompt has few questions at a time."""
    shard_size: int = Field(50, ge=1)
    """Prompts a shard: one durable, separately retried piece of the stage."""
    budget: BudgetConfig = BudgetConfig()
    """What the judge may be asked for, over all tries of one scoring; at it, the stage stops cleanly."""

    @property
    def prompts_at_once(self) -> int:
        """Prompts that are under way in all."""
        return self.prompts_in_flight * (1 if self.strategy == "full" else 4)
