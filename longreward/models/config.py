"""Which model is the policy and how prompts are rendered for it: the section `policy` of `params.yaml`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from longreward.config import Config
from longreward.errors import PolicyError

OverWindow = Literal["refuse", "keep_ends"]


class PolicyConfig(Config):
    """The model that is trained, and how prompts are rendered for it."""

    base_model: str
    """The model that `sft` starts from: a folder, a GGUF file or a hub id, optionally with its revision
    (`org/name@revision`)."""
    sft_model: str | None = None
    """A model that is already fine-tuned (folder, GGUF file or hub id). `sft` then links to it instead of training one;
    a GGUF file is converted."""
    revision: str | None = None
    """Commit, tag or branch of a hub id that carries no revision of its own. Ignored for folders."""
    chat_template: str | None = None
    """A chat template (Jinja), or the path of a file with one, that replaces the tokenizer's. Base models need it."""
    prompt_template: str = "{context}\n\n{query}"
    """Content of the user turn. Must contain {context} and {query}, each at least once."""
    trust_remote_code: bool = False
    """Whether Python code shipped with a model may run on this machine. Pin the revision if you allow it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights in memory. auto: as saved, and float32 if all weights are trained."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the first GPU if there is one."""
    device_map: Literal["auto", "balanced", "sequential"] | dict[str, int | str] | None = None
    """null: the whole model on `device`. auto: the layers spread over all GPUs, for a model that does not fit on one.
    A dictionary maps module names to devices. Layers on the CPU or the disk can generate but cannot be trained."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers. flash_attention_2 needs the package flash-attn and 16-bit weights."""
    window: int | None = Field(default=None, ge=16)
    """Maximum number of prompt and completion tokens together; null: the value of the model's config, which is also
    the upper limit."""

    @field_validator("prompt_template")
    @classmethod
    def _contains_both_slots(cls, template: str) -> str:
        for slot in ("{context}", "{query}"):
            if slot not in template:
                raise ValueError(f"must hold {slot}")
        return template


def read_chat_template(config: PolicyConfig) -> str | None:
    """Return the configured chat template, or None for the tokenizer's own.

    A value without Jinja tags is a path. Raises PolicyError if that file cannot be read.
    """
    template = config.chat_template
    if template is None or "{{" in template or "{%" in template:
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"policy.chat_template: {template} cannot be read ({error}); name a file with a Jinja template, or set the "
            "template itself"
        ) from error
