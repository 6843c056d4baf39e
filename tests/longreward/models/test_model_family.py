"""Families of models by their names and config.json, and the warning about judges of the policy's family."""

import json
from pathlib import Path

import pytest

from longreward.models.config import PolicyConfig
from longreward.models.model_family import name_families, policy_families, same_family_warnings


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", {"Llama"}),
        ("llama3.1:8b", {"Llama"}),
        ("Qwen/Qwen3-32B", {"Qwen"}),
        ("qwq:32b", {"Qwen"}),
        ("THUDM/chatglm3-6b", {"GLM"}),
        ("glm-4-plus", {"GLM"}),
        ("gpt-4o-2024-05-13", {"GPT"}),
        ("openai/gpt-oss-20b", {"GPT"}),
        ("o3-mini", {"GPT"}),
        ("microsoft/Phi-4", {"Phi"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"DeepSeek", "Qwen"}),
        ("claude-sonnet-4-5", set()),
        ("ollama/judge", set()),
        ("sapphire-2", set()),
        ("gpt2", set()),
    ],
)
def test_families_in_names(name: str, families: set[str]) -> None:
    assert name_families(name) == families


@pytest.mark.parametrize(
    ("config", "families"),
    [
        ({"model_type": "qwen2", "vocab_size": 151936}, {"Qwen"}),
        ({"model_type": "llama", "vocab_size": 128256}, {"Llama"}),
        ({"model_type": "llama", "vocab_size": 128264}, {"Llama"}),
        ({"model_type": "llama", "vocab_size": 49152}, set()),  # SmolLM2 without its name
        ({"model_type": "gpt2"}, set()),
    ],
    ids=["qwen2", "llama3", "llama3-with-added-tokens", "architecture-of-llama", "gpt2"],
)
def test_family_of_a_folder_without_a_telling_name(
    config: dict[str, object], families: set[str], tmp_path: Path
) -> None:
    folder = tmp_path / "qwen-runs" / "my-policy"  # names of other folders say nothing about the model
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    assert policy_families(PolicyConfig(base_model=str(folder))) == families


def test_warning_names_judge_policy_and_family() -> None:
    policy = PolicyConfig(base_model="Qwen/Qwen2.5-7B", sft_model="org/my-sft-model")
    (warning,) = same_family_warnings(policy, ["Qwen/Qwen3-32B", "gpt-4o", "Qwen/Qwen3-32B"])
    assert warning.startswith("the judge Qwen/Qwen3-32B and the policy org/my-sft-model are Qwen models")
    assert same_family_warnings(policy, ["gpt-4o", ""]) == []
