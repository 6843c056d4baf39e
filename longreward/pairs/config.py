"""Settings of pair selection that all methods share."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from longreward.config import Config
from longreward.records import EQUAL_WEIGHTS, Dimension

Weight = Annotated[float, Field(ge=0, le=1000)]
Selection = Literal["best_worst", "best_second"]


class SelectionConfig(Config):
    """Which prompts give a pair, and which two responses are in it."""

    selection: Selection = "best_worst"
    """For longreward and srm: best against worst (the paper), or best against the next lower reward."""
    seed: int = 0
    """Seed of the methods random and contrast."""
    min_scored: int = Field(default=5, ge=2)
    """Responses of a prompt that must be scored in all dimensions with a weight (the published code: 5). Responses that
    `score.strategy: adaptive` left open count too. pairwise and random count all responses; contrast needs one."""
    min_margin: float = Field(default=0.0, ge=0.0, le=10.0)
    """Minimum difference of the two rewards of longreward, on the scale of 0 to 10. A tie never makes a pair."""
    choose_truncated: bool = False
    """Whether a response that was truncated at `sample.max_new_tokens` may be the chosen one. It may always be
    the rejected one."""
    weights: dict[Dimension, Weight] = Field(default=dict(EQUAL_WEIGHTS))
    """Weight of each dimension in the reward (paper, section 3.1: equal). 0 leaves a dimension out; missing dimensions
    have weight 1. After `score.strategy: full`, other weights need no judge call."""
    responses: int | None = Field(default=None, ge=2)
    """Use only the first n responses of each prompt; null: all."""
    max_disagreement: float = Field(default=3.0, ge=0.0, le=20.0)
    """With `judge.panel`: a pair is flagged as disputed if the margins by its judges lie further apart than this, on
    the scale of 0 to 10. Margins of 5 and -1 are 6 apart."""
    disputed: Literal["keep", "exclude"] = "keep"
    """Whether a disputed pair is only flagged, or its prompt gives no pair."""
    exclude: str | None = None
    """A jsonl file of prompts that give no pair, as the evidence page exports it: `idx` and optionally `comment`. Use
    data/excluded.jsonl, which the stage depends on in dvc.yaml; null: none."""

    @field_validator("weights")
    @classmethod
    def _complete_weights(cls, weights: dict[Dimension, Any]) -> dict[Dimension, Any]:
        complete = {**EQUAL_WEIGHTS, **weights}
        if not any(complete.values()):
            raise ValueError("all weights are 0; give at least one dimension a weight")
        return complete
