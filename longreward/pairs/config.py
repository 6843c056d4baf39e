"""What the other methods of `pair.method` need to know."""

from typing import Literal

from pydantic import Field

from longreward.config import Config
from longreward.records import Method

PairMethod = Literal["longreward", "srm", "contrast", "pairwise", "random", "given"]
WITH_REWARDS: frozenset[Method] = frozenset({"longreward", "srm"})


class TinyRewardConfig(Config):
    """The reward model of the embedded default, trained by TRL's RewardTrainer on the built-in short preferences."""

    base: str = "models/tiny-base"
    """A folder of a causal language model: its body, under a new head, is what is trained."""
    pairs: int = Field(default=400, ge=8)
    """Short preferences to train on."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over them."""
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    """Peak rate of AdamW."""
    batch_size: int = Field(default=16, ge=1)
    """Preferences in an update."""
    seed: int = 0
    """Of the head's first weights and of the order."""


class SrmConfig(Config):
    """The reward model of `pair.method: srm`; not looked at otherwise."""

    model: str | None = None
    """A sequence-classification model with one output: a folder or a hub id, which may carry its revision
    (`org/name@revision`); null: a tiny one is trained once on the built-in short preferences and kept in the state
    folder. It knows the words of the built-in corpus alone."""
    revision: str | None = None
    """Commit, tag or branch of a hub id that does not carry its own; not looked at for a folder."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the model may run here, with your rights."""
    window: int | None = Field(default=None, ge=16)
    """Most tokens that the model sees, query, response and context together; null: what its config says."""
    batch_size: int = Field(default=8, ge=1)
    """Responses that pass the model at once, of like length."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in memory; auto: as they were saved."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the first GPU where there is one."""
    min_margin: float = Field(default=0.0, ge=0)
    """Least difference of the two rewards, on the model's own scale. A tie never makes a pair."""
    tiny: TinyRewardConfig = TinyRewardConfig()
    """Where `model` is null."""


class PairwiseConfig(Config):
    """The comparisons of `pair.method: pairwise`; not looked at otherwise."""

    context_tokens: int = Field(default=16384, ge=0)
    """Most tokens of the document that the judge sees beside the two responses, its first and last halves, as
    `score.tokenizer: simple` counts; 0: it sees none of it."""
