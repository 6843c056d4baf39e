"""Batches, cache variants and the transformers fallback generate the same tokens."""

import logging
from types import SimpleNamespace

import pytest
import torch
from tiny_sizes import TINY_SIZES
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
)

from longreward.models import generation
from longreward.models.generation import SamplingParams, generate, rng_stream, sample_token
from longreward.models.shared_cache import SharedCacheError

SIZES = {
    "vocab_size": 60,
    **TINY_SIZES,
    "max_position_embeddings": 256,
}
CONFIGS = {
    "full attention": LlamaConfig(**SIZES),
    "sliding windows": MistralConfig(**SIZES, sliding_window=8),
    "alternating": Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "learned positions": GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3
    ),
    "recurrent state": Qwen3NextConfig(
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


STATES = {
    "qwen3_next": CONFIGS["recurrent state"],
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"], block_multiple_of=8),
    "recurrent_gemma": RecurrentGemmaConfig(
        **{**SIZES, "num_hidden_layers": 3}, head_dim=8, lru_width=32, attention_window_size=16
    ),
    "mamba": MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3),
    "falcon_h1": FalconH1Config(  # attention and a state in each layer
        **SIZES, head_dim=8, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_chunk_size=16
    ),
}


def policy_of(config, attention="sdpa", ends=(3,)):
    torch.manual_seed(0)
    attn = None if isinstance(config, MambaConfig) else attention
    return SimpleNamespace(
        model=AutoModelForCausalLM.from_config(config, attn_implementation=attn).eval(),
        encoder=SimpleNamespace(end_ids=ends),
        device=torch.device("cpu"),
        config=SimpleNamespace(attention=attention),
    )


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batched_prompts_give_same_responses_as_single_prompts(kind, temperature):
    policy = policy_of(CONFIGS[kind])
    prompts = [[4 + (7 * index + length) % 56 for index in range(length)] for length in LENGTHS]
    streams = [rng_stream(5, str(index), 0, 40) for index in range(len(prompts))]
    params = SamplingParams(temperature)
    expected_single = [
        generate(policy, [ids], [stream], params, limits=[limit])[0]
        for ids, stream, limit in zip(prompts, streams, LIMITS, strict=True)
    ]
    assert generate(policy, prompts, streams, params, limits=LIMITS) == expected_single
    assert len({tuple(ids) for [ids] in expected_single}) == len(expected_single)
    assert all(len(ids) <= limit for [ids], limit in zip(expected_single, LIMITS, strict=True))


PROMPTS = [[4 + (7 * index + length) % 56 for index in range(length)] for length in (9, 21)]


@pytest.mark.parametrize("kind", STATES)
def test_recurrent_model_samples_each_response_from_own_stream(kind, caplog, monkeypatch):
    monkeypatch.setattr(generation, "_warned_classes", set())
    policy = policy_of(STATES[kind], ends=(3, 17))
    policy.model.generation_config.repetition_penalty = 50.0  # none of these is part of sampling here
    policy.model.generation_config.min_new_tokens = 9
    streams = [rng_stream(5, str(index), number, 16) for index in range(2) for number in range(3)]
    limits = [16, 7]
    generated = generate(policy, PROMPTS, streams, SamplingParams(1.0, n=3), limits=limits)
    expected_single = [
        generate(policy, [PROMPTS[i // 3]], [stream], SamplingParams(1.0), limits=[limits[i // 3]])[0][0]
        for i, stream in enumerate(streams)
    ]
    assert [response for responses in generated for response in responses] == expected_single
    assert len({tuple(response) for response in expected_single}) == 6
    assert all(1 <= len(response) <= 7 for response in generated[1])
    assert all(not {3, 17} & {*response[:-1]} for response in expected_single)
    [warning] = [record.message for record in caplog.records if "keeps a state" in record.message]
    assert warning.startswith(f"{type(policy.model).__name__} keeps a state besides keys and values")
    assert policy.model.generation_config.repetition_penalty == 50.0


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(1.0, n=4),
        SamplingParams(0.7, top_p=0.8, n=4),
        SamplingParams(0.0, n=2),
        SamplingParams((1.0, 0.5, 0.0), n=3),
    ],
)
def test_transformers_generate_samples_same_tokens(params, monkeypatch):
    policy = policy_of(CONFIGS["full attention"], ends=(3, 17, 40))
    streams = [rng_stream(1, str(index), number, 20) for index in range(2) for number in range(params.n)]
    expected = generate(policy, PROMPTS, streams, params, limits=[20, 5])
    monkeypatch.setattr(generation, "_needs_transformers", lambda model: True)
    assert generate(policy, PROMPTS, streams, params, limits=[20, 5]) == expected
    if params.temperature == 1:
        assert len({len(response) for group in expected for response in group}) > 2  # some ended before others


def test_transformers_generate_can_be_stopped(monkeypatch):
    policy = policy_of(STATES["lfm2"], ends=(59,))
    stop_flags = iter([False, False, True, *[True] * 9])
    streams = [rng_stream(1, "1", number, 20) for number in range(2)]
    generated = generate(policy, PROMPTS[:1], streams, SamplingParams(1.0, n=2), stopped=lambda: next(stop_flags))
    assert [len(response) for response in generated[0]] == [3, 3]


@pytest.mark.parametrize(("warn_bytes", "level"), [(10_000, logging.INFO), (8_000, logging.WARNING)])
def test_cache_copies_logged_with_size(warn_bytes, level, caplog, monkeypatch):
    monkeypatch.setattr(generation, "_reported_bytes", {})
    monkeypatch.setattr(generation, "WARN_CACHE_BYTES", warn_bytes)
    policy = policy_of(CONFIGS["sliding windows"])
    streams = [rng_stream(5, str(number), 0, 3) for number in range(5)]
    with caplog.at_level(logging.INFO):
        generate(policy, PROMPTS[:1], streams[:1], SamplingParams(1.0))
        for _ in range(2):
            generate(policy, PROMPTS[:1], streams, SamplingParams(1.0, n=5))
    [record] = [record for record in caplog.records if "the prompts' cache 5 times" in record.message]
    # Keys and values of 2 layers x 2 heads x 8 float32: 256 bytes a token; a window of 8 keeps 7 tokens.
    assert (record.levelno, [*generation._reported_bytes.values()]) == (level, [5 * 7 * 256])
    assert "because some layers have windows" in record.message


def test_cache_that_cannot_be_shared_is_error_if_shared_is_set():
    policy = policy_of(CONFIGS["sliding windows"])
    streams = [rng_stream(5, str(number), 0, 3) for number in range(2)]
    with pytest.raises(SharedCacheError, match="some layers have windows"):
        generate(policy, PROMPTS[:1], streams, SamplingParams(1.0, n=2, cache="shared"))


@pytest.mark.parametrize("cache", ["shared", "repeated"])
def test_token_ids_above_two_bytes_returned(cache):
    torch.manual_seed(1)
    config = LlamaConfig(**{**SIZES, "vocab_size": 140_000, "hidden_size": 8, "num_attention_heads": 1})
    config.num_key_value_heads = 1
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    policy = SimpleNamespace(
        model=model,
        encoder=SimpleNamespace(end_ids=(3,)),
        device=torch.device("cpu"),
        config=SimpleNamespace(attention="sdpa"),
    )
    prompt = [5, 131_071, 40_000, 70_001]
    streams = [rng_stream(2, "a", number, 6) for number in range(3)]
    [generated] = generate(policy, [prompt], streams, SamplingParams(1.0, n=3, cache=cache))
    expected = []
    for stream in streams:  # the plain way: the whole text is read again for each token
        ids = [*prompt]
        for index in range(6):
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[:, -1]
            ids.append(int(sample_token(logits, stream[index : index + 1], temperature=1.0, top_p=1.0)))
        expected.append(ids[len(prompt) :])
    assert generated == expected
    assert max(max(ids) for ids in generated) > 65_536
    assert sum(i > 32_767 for ids in generated for i in ids) > 9  # half of all would be lost or turned
