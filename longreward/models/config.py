"""Which model is the policy and how prompts are rendered for it: the section `policy` of `params.yaml`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from longreward.config import Config
from longreward.errors import PolicyError

OverWindow = Literal["refuse", "keep_ends"]


class PolicyConfig(Config):
    """Which model is trained, and how prompts are put to it."""

    base_model: str
    """A folder or a hub id: what `sft` starts from. A hub id may carry its revision: `org/name@revision`."""
    sft_model: str | None = None
    """A folder or a hub id of a model that is fine-tuned already: `sft` passes it on instead of training one."""
    revision: str | None = None
    """Commit, tag or branch of a hub id that does not carry its own; not looked at for a folder."""
    chat_template: str | None = None
    """A chat template (Jinja) or the path of a file with one, in place of the tokenizer's; base models have none."""
    prompt_template: str = "{context}\n\n{query}"
    """What the user's turn holds; must name {context} and {query}, each once or more."""
    trust_remote_code: bool = False
    """Whether Python code that comes with a model may run here, with your rights; pin its revision where it may."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in memory; auto: as they were saved, and float32 where all weights are trained."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the first GPU where there is one."""
    device_map: Literal["auto", "balanced", "sequential"] | dict[str, int | str] | None = None
    """null: the whole model on `device`. auto: its layers one after another over all GPUs, for a model that does not
    fit into one; a map of module names to devices says where each goes. What is left to the CPU or the disk can answer,
    but cannot be trained."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Transformers' name of the attention to use; flash_attention_2 needs the package flash-attn and 16-bit weights."""
    window: int | None = Field(default=None, ge=16)
    """Most tokens of prompt and completion together, at most what the model's own config says; null: just that."""

    @field_validator("prompt_template")
    @classmethod
    def _names_both(cls, template: str) -> str:
        for slot in ("{context}", "{query}"):
            if slot not in template:
                raise ValueError(f"must hold {slot}")
        return template


def chat_template(config: PolicyConfig) -> str | None:
    """The chat template that the settings give, None for the tokenizer's own; PolicyError where its file is not there.

    A value with no Jinja in it is the path of a file.
    """
    given = config.chat_template
    if given is None or "{{" in given or "{%" in given:
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"policy.chat_template: {given} cannot be read ({error}); give a file with a Jinja template, or the "
            "template itself"
        ) from error
