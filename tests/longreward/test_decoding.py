"""A batch of prompts of different lengths gives the answers of each prompt alone, whatever the model's attention."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3NextConfig,
)

from longreward.decoding import Drawing, draw, stream

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
CONFIGS = {
    "full attention": LlamaConfig(**SIZES),
    "sliding windows": MistralConfig(**SIZES, sliding_window=8),
    "both in turn": Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "learned positions": GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3
    ),
    "a state instead of a cache": Qwen3NextConfig(
        **SIZES,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        num_experts=4,
        num_experts_per_tok=2,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}
LENGTHS = [1, 33, 7, 12, 40, 2, 25, 9]
LIMITS = [40, 3, 22, 1, 40, 8, 15, 40]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_gives_the_answers_of_each_prompt_alone(kind, temperature):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind], attn_implementation="sdpa").eval()
    policy = SimpleNamespace(
        model=model,
        text=SimpleNamespace(end_ids=(3,)),
        device=torch.device("cpu"),
        config=SimpleNamespace(attention="sdpa"),
    )
    prompts = [[4 + (7 * place + length) % 56 for place in range(length)] for length in LENGTHS]
    streams = [stream(5, str(place), 0, 40) for place in range(len(prompts))]
    drawing = Drawing(temperature)
    alone = [
        draw(policy, [ids], [own], drawing, limits=[limit])[0]
        for ids, own, limit in zip(prompts, streams, LIMITS, strict=True)
    ]
    assert draw(policy, prompts, streams, drawing, limits=LIMITS) == alone
    assert len({tuple(ids) for [ids] in alone}) == len(alone)
    assert all(len(ids) <= limit for [ids], limit in zip(alone, LIMITS, strict=True))
