import logging

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from longreward.errors import PolicyError
from longreward.formats import write_pairs
from longreward.policy import PolicyConfig
from longreward.records import PreferencePair, Response
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.prefix import attention as prefix_attention
from longreward.training.prefix.support import reason_against

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_plain_model_can(attention, dtype):
    model = llama().to(dtype)
    model.set_attn_implementation(attention)
    assert reason_against(model, longest=10_000) is None
    assert model.config._attn_implementation == attention


def test_learned_positions_can_too():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    assert reason_against(model, longest=64) is None


@pytest.mark.parametrize(("longest", "refused"), [(64, False), (65, True)])
def test_a_sliding_window_must_hold_the_longest_pair(longest, refused):
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=64)).eval()
    reason = reason_against(model, longest=longest)
    assert (reason is not None) is refused
    if reason:
        assert "64 tokens back, and the longest pair has 65" in reason


def test_a_window_that_is_switched_off_is_none():
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, sliding_window=8, use_sliding_window=False)).eval()
    assert reason_against(model, longest=10_000) is None


def test_layers_that_read_a_row_as_one_text_cannot():
    model = llama()
    model.config.layer_types = ["full_attention", "linear_attention"]
    assert reason_against(model, longest=20) == "it has layers of linear_attention, which read a row as one text"


@pytest.mark.parametrize(("weight", "refused"), [(0.02, True), (0.0, False)])
def test_experts_with_a_balancing_loss_cannot(weight, refused):
    config = MixtralConfig(**SIZES, num_local_experts=2, router_aux_loss_coef=weight, sliding_window=None)
    reason = reason_against(MixtralForCausalLM(config).eval(), longest=20)
    assert (reason is not None and "router_aux_loss_coef" in reason) is refused


def test_an_attention_without_two_plain_calls_cannot():
    model = llama()
    model.config._attn_implementation = "flex_attention"
    assert reason_against(model, longest=20).startswith("its attention is flex_attention")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_comes_out_otherwise_is_found_by_trial(dtype, monkeypatch):
    def sees_all(attend, query, key, value, lengths):
        return attend(query, key, value)

    monkeypatch.setattr(prefix_attention, "_attend_pair", sees_all)
    assert "on a trial pair its hidden states differ by" in reason_against(llama().to(dtype), longest=20)


def a_training(tmp_path, base, **changes):
    def response(number: int, text: str) -> Response:
        return Response(id=f"1-{number}", example_id="1", query="who is mayor ?", text=text)

    pair = PreferencePair(
        id="1",
        context="anna is the mayor and ben was it .",
        query="who is mayor ?",
        chosen=response(0, "anna is the mayor ."),
        rejected=response(1, "ben ."),
        chosen_reward=9.0,
        rejected_reward=3.0,
    )
    write_pairs(tmp_path / "pairs.jsonl", [pair])
    figures = []
    train_dpo(
        TrainConfig(max_steps=3, batch_size=1, bf16=False, learning_rate=5e-3, warmup=0, log_steps=1, **changes),
        PolicyConfig(base_model="unused"),
        sft_model=str(base),
        pairs=tmp_path / "pairs.jsonl",
        out=tmp_path / "out",
        state=tmp_path / "state",
        log=lambda step, found: figures.append(found),
    )
    return figures


def test_a_training_is_the_same_with_it_and_without(tmp_path, tiny_policy):
    shared = a_training(tmp_path, tiny_policy, prefix_sharing="on")
    stock = a_training(tmp_path, tiny_policy, prefix_sharing="off")
    for one, other in zip(shared, stock, strict=True):
        assert one["num_tokens"] == other["num_tokens"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    assert shared[0]["loss"] != shared[1]["loss"]


def test_auto_says_why_it_is_off_and_on_stops(tmp_path, tiny_policy, caplog):
    folder = tmp_path / "experts"
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    config = MixtralConfig(**SIZES, num_local_experts=2, bos_token_id=2, eos_token_id=3, max_position_embeddings=64)
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        a_training(tmp_path, folder, prefix_sharing="auto")
    assert "prefix sharing is off" in caplog.text
    assert "router_aux_loss_coef" in caplog.text
    with pytest.raises(PolicyError, match=r"train\.prefix_sharing is on, and this model cannot: its loss"):
        a_training(tmp_path, folder, prefix_sharing="on")
