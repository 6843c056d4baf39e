import logging

import pytest
import torch
from tiny_sizes import TINY_SIZES
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
)

from longreward.training.dropout import disable_dropout, is_random_in_training

OPT = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**TINY_SIZES, "vocab_size": 50}
EXPERTS = {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
MODELS = {
    "attention_dropout": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, attention_dropout=0.3)),
    "dropout": lambda: OPTForCausalLM(OPTConfig(**OPT, ffn_dim=64, word_embed_proj_dim=32, dropout=0.2)),
    "jitter_noise": lambda: MixtralForCausalLM(MixtralConfig(**EXPERTS, router_jitter_noise=0.4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_functional_dropout_and_router_noise_disabled(name, caplog):
    model = MODELS[name]().eval()
    assert is_random_in_training(model)
    config = model.config.to_dict()
    with caplog.at_level(logging.INFO):
        disable_dropout(model)
    assert f"{name} 0." in caplog.text
    assert "is random in training" not in caplog.text
    assert not is_random_in_training(model)
    assert model.config.to_dict() == config


def test_remaining_randomness_is_warning(caplog):
    torch.manual_seed(0)
    model = PhimoeForCausalLM(PhimoeConfig(**EXPERTS, router_jitter_noise=0.2))
    disable_dropout(model)
    [record] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "PhimoeForCausalLM is random in training mode" in record.message


def test_randomness_check_restores_mode_random_state_and_dropout():
    model = MODELS["dropout"]().eval()
    layer = torch.nn.Dropout(0.25)
    model.get_decoder().more = layer
    layer.resid_pdrop, layer.use_dropout, layer.scale = 0.1, True, 0.5
    state = torch.get_rng_state()
    disable_dropout(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.training, layer.p) == (False, 0.25)
    assert (layer.resid_pdrop, layer.use_dropout, layer.scale) == (0.0, True, 0.5)
