from types import SimpleNamespace

import pytest
import torch

from longreward.errors import ConfigError, PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.training.config import LoraSettings
from longreward.training.lora import build_lora_config
from longreward.training.run import check_trainable
from longreward.training.sft import SftConfig, train_sft

ROW = {"idx": "1", "context": "the town is north .", "query": "where is the town ?", "answer": "it is north ."}


@pytest.fixture(scope="module")
def model(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy).model


@pytest.fixture
def changed(tiny_policy, write_lines, tmp_path):
    """`changed(lora)` trains with it and names the weights that are others afterwards."""

    def train(lora):
        base = str(tiny_policy)
        config = SftConfig(
            learning_rate=0.02, max_steps=2, batch_size=1, bf16=False, gradient_checkpointing=False, lora=lora, warmup=0
        )
        data, out = write_lines(tmp_path / "sft.jsonl", [ROW]), tmp_path / "out"
        train_sft(config, PolicyConfig(base_model=base), base=base, data=data, out=out, state=tmp_path / "state")
        before, after = (load_policy(PolicyConfig(base_model=base), path).model.state_dict() for path in (base, out))
        return {name for name in before if not torch.equal(before[name], after[name])}

    return train


def test_only_named_layers_trained(changed):
    assert changed(LoraSettings(r=2, target_modules=("q_proj", "layers.1.mlp.up_proj"))) == {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
    }


def test_pattern_matches_full_names_and_modules_saved(changed):
    lora = LoraSettings(r=2, target_modules=r"model\.layers\.0\..*\.v_proj", modules_to_save=("lm_head",))
    assert changed(lora) == {"model.layers.0.self_attn.v_proj.weight", "lm_head.weight"}


def test_unknown_layer_is_error_that_lists_layers(model):
    with pytest.raises(PolicyError, match=r"no layer of this model is named 'query_key_value'; there are .*q_proj, k_"):
        build_lora_config(LoraSettings(target_modules=("q_proj", "query_key_value")), model)
    with pytest.raises(PolicyError, match=r"named '\.\*layers\.7\.\*'"):
        build_lora_config(LoraSettings(target_modules=".*layers.7.*"), model)


def test_part_of_name_does_not_match(model):
    with pytest.raises(PolicyError, match="no layer of this model is named 'proj'"):
        build_lora_config(LoraSettings(target_modules=("proj",)), model)


def test_output_embedding_refused(model):
    with pytest.raises(PolicyError, match=r"'lm_head' is the output embedding.*lora\.modules_to_save"):
        build_lora_config(LoraSettings(target_modules=("q_proj", "lm_head")), model)


def test_unknown_module_to_save_is_error(model):
    with pytest.raises(PolicyError, match=r"no module of this model is named 'wte'; there are .*embed_tokens"):
        build_lora_config(LoraSettings(modules_to_save=("wte",)), model)


@pytest.mark.parametrize(("targets", "message"), [("q_proj(", "not a regular expression"), ([], "is empty")])
def test_invalid_targets_refused(targets, message):
    with pytest.raises(ConfigError, match=message):
        LoraSettings.parse({"target_modules": targets}, source="train.lora")


def test_offloaded_weights_are_not_trainable():
    spread = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    with pytest.raises(PolicyError, match=r"no room on the GPUs for 2 weights, 1\.weight among them"):
        check_trainable(SimpleNamespace(model=spread))
