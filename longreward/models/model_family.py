"""Recognize the family of a model, such as Qwen, by its name and its config.json.

A judge tends to prefer responses of its own family (A. Panickssery et al., "LLM Evaluators Recognize and Favor Their
Own Generations", arXiv 2404.13076).
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from longreward.models.config import PolicyConfig

# Names of models and values of `model_type`. A policy has public weights, so families of closed models are left out.
FAMILIES: Mapping[str, str] = {
    "Baichuan": "baichuan",
    "Command": "command-?[ar]|cohere|aya",
    "DeepSeek": "deepseek",
    "ERNIE": "ernie",
    "EXAONE": "exaone",
    "Falcon": "falcon",
    "Gemma": "gemma",
    "GLM": "chatglm|glm",
    "GPT": "chatgpt|gpt-[345]|gpt[-_]oss|o[134](?![0-9a-z])",
    "Granite": "granite",
    "Hunyuan": "hunyuan",
    "InternLM": "internlm",
    "Kimi": "kimi|moonshot",
    "Llama": "(?:meta|code|tiny)?llama|vicuna",
    "MiniCPM": "minicpm",
    "Mistral": "mistral|mixtral|ministral|magistral|codestral|devstral|zephyr",
    "OLMo": "olmo",
    "Phi": "phi(?![a-z])",
    "Qwen": "qwen|qwq",
    "SmolLM": "smollm",
    "Yi": "yi(?![a-z])",
}
_PATTERNS = {family: re.compile(f"(?<![a-z])(?:{pattern})", re.IGNORECASE) for family, pattern in FAMILIES.items()}
# Llama's architecture has many users (SmolLM2, Yi, …); its own tokenizers have these sizes, with some added tokens.
LLAMA_VOCABULARIES = (range(32_000, 32_064), range(128_256, 128_512))


def name_families(name: str) -> frozenset[str]:
    """Return the families that a model's name contains; a distilled model may have two.

    >>> sorted(name_families("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")), sorted(name_families("ollama/my-judge"))
    (['DeepSeek', 'Qwen'], [])
    """
    return frozenset(family for family, pattern in _PATTERNS.items() if pattern.search(name))


def policy_families(config: PolicyConfig) -> frozenset[str]:
    """Return the families of the policy by its name and, if it is a folder, by its config.json."""
    families: frozenset[str] = frozenset()
    for model in filter(None, (config.base_model, config.sft_model)):
        path = Path(model)
        families |= name_families(path.name if path.is_absolute() or path.exists() else model)
        with suppress(OSError, ValueError):  # no folder, or a broken one, which loading the model reports
            families |= _config_families(json.loads((path / "config.json").read_text(encoding="utf-8")))
    return families


def same_family_warnings(policy: PolicyConfig, judges: Iterable[str]) -> list[str]:
    """Return a sentence for each judge, given by its model's name, that is of the policy's family."""
    families = policy_families(policy)
    return [
        f"the judge {judge} and the policy {policy.sft_model or policy.base_model} are {' and '.join(sorted(shared))} "
        "models: judges tend to prefer responses of their own family, so use a judge of another one, or add some in "
        "judge.panel"
        for judge in dict.fromkeys(judges)
        if (shared := families & name_families(judge))
    ]


def _config_families(config: Mapping[str, Any]) -> frozenset[str]:
    families = name_families(str(config.get("model_type", "")))
    if not any(config.get("vocab_size") in sizes for sizes in LLAMA_VOCABULARIES):
        families -= {"Llama"}
    return families
