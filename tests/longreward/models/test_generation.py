"""A batch of prompts of different lengths gives the answers of each prompt alone, whatever the model's attention."""

import logging
from types import SimpleNamespace

import pytest
import torch
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


STATES = {
    "qwen3_next": CONFIGS["a state instead of a cache"],
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
    own = None if isinstance(config, MambaConfig) else attention
    return SimpleNamespace(
        model=AutoModelForCausalLM.from_config(config, attn_implementation=own).eval(),
        text=SimpleNamespace(end_ids=ends),
        device=torch.device("cpu"),
        config=SimpleNamespace(attention=attention),
    )


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_gives_the_answers_of_each_prompt_alone(kind, temperature):
    policy = policy_of(CONFIGS[kind])
    prompts = [[4 + (7 * place + length) % 56 for place in range(length)] for length in LENGTHS]
    streams = [rng_stream(5, str(place), 0, 40) for place in range(len(prompts))]
    drawing = SamplingParams(temperature)
    alone = [
        generate(policy, [ids], [own], drawing, limits=[limit])[0]
        for ids, own, limit in zip(prompts, streams, LIMITS, strict=True)
    ]
    assert generate(policy, prompts, streams, drawing, limits=LIMITS) == alone
    assert len({tuple(ids) for [ids] in alone}) == len(alone)
    assert all(len(ids) <= limit for [ids], limit in zip(alone, LIMITS, strict=True))


PROMPTS = [[4 + (7 * place + length) % 56 for place in range(length)] for length in (9, 21)]


@pytest.mark.parametrize("kind", STATES)
def test_a_model_with_a_state_draws_each_answer_from_its_own_stream(kind, caplog, monkeypatch):
    monkeypatch.setattr(generation, "_warned", set())
    policy = policy_of(STATES[kind], ends=(3, 17))
    policy.model.generation_config.repetition_penalty = 50.0  # none of these is part of sampling here
    policy.model.generation_config.min_new_tokens = 9
    streams = [rng_stream(5, str(place), number, 16) for place in range(2) for number in range(3)]
    limits = [16, 7]
    found = generate(policy, PROMPTS, streams, SamplingParams(1.0, n=3), limits=limits)
    alone = [
        generate(policy, [PROMPTS[at // 3]], [own], SamplingParams(1.0), limits=[limits[at // 3]])[0][0]
        for at, own in enumerate(streams)
    ]
    assert [answer for answers in found for answer in answers] == alone
    assert len({tuple(answer) for answer in alone}) == 6
    assert all(1 <= len(answer) <= 7 for answer in found[1])
    assert all(not {3, 17} & {*answer[:-1]} for answer in alone)
    [warning] = [record.message for record in caplog.records if "keeps a state" in record.message]
    assert warning.startswith(f"{type(policy.model).__name__} keeps a state besides keys and values")
    assert policy.model.generation_config.repetition_penalty == 50.0


@pytest.mark.parametrize(
    "drawing", [SamplingParams(1.0, n=4), SamplingParams(0.7, top_p=0.8, n=4), SamplingParams(0.0, n=2)]
)
def test_generate_draws_what_is_drawn_without_it(drawing, monkeypatch):
    policy = policy_of(CONFIGS["full attention"], ends=(3, 17, 40))
    streams = [rng_stream(1, str(place), number, 20) for place in range(2) for number in range(drawing.n)]
    expected = generate(policy, PROMPTS, streams, drawing, limits=[20, 5])
    monkeypatch.setattr(generation, "has_recurrent_state", lambda model: True)
    assert generate(policy, PROMPTS, streams, drawing, limits=[20, 5]) == expected
    if drawing.temperature == 1:
        assert len({len(answer) for answers in expected for answer in answers}) > 2  # some ended before others


def test_generate_stops_when_it_is_told_to(monkeypatch):
    policy = policy_of(STATES["lfm2"], ends=(59,))
    asked = iter([False, False, True, *[True] * 9])
    streams = [rng_stream(1, "1", number, 20) for number in range(2)]
    found = generate(policy, PROMPTS[:1], streams, SamplingParams(1.0, n=2), stopped=lambda: next(asked))
    assert [len(answer) for answer in found[0]] == [3, 3]


@pytest.mark.parametrize(
    ("kind", "attention", "size", "level", "words"),
    [
        # keys and values of 2 layers x 2 heads x 8 float32: 256 bytes a token; a window of 8 keeps 7 tokens
        ("sliding windows", "sdpa", 5 * 7 * 256, logging.INFO, "since some layers have windows"),
        ("full attention", "flash_attention_2", 5 * 9 * 256, logging.WARNING, "sdpa shares one cache"),
    ],
)
def test_copies_of_a_cache_are_reported_with_their_size(kind, attention, size, level, words, caplog, monkeypatch):
    monkeypatch.setattr(generation, "_reported", {})
    monkeypatch.setattr(generation, "LARGE_BYTES", 10_000)
    policy = policy_of(CONFIGS[kind])
    policy.config.attention = attention
    streams = [rng_stream(5, str(number), 0, 3) for number in range(5)]
    with caplog.at_level(logging.INFO):
        generate(policy, PROMPTS[:1], streams[:1], SamplingParams(1.0))
        for _ in range(2):
            generate(policy, PROMPTS[:1], streams, SamplingParams(1.0, n=5))
    [record] = [one for one in caplog.records if "the prompts' cache 5 times" in one.message]
    assert (record.levelno, [*generation._reported.values()]) == (level, [size])
    assert words in record.message


@pytest.mark.parametrize("cache", ["shared", "repeated"])
def test_token_ids_beyond_two_bytes_are_drawn_and_returned(cache):
    torch.manual_seed(1)
    config = LlamaConfig(**{**SIZES, "vocab_size": 140_000, "hidden_size": 8, "num_attention_heads": 1})
    config.num_key_value_heads = 1
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    policy = SimpleNamespace(
        model=model,
        text=SimpleNamespace(end_ids=(3,)),
        device=torch.device("cpu"),
        config=SimpleNamespace(attention="sdpa"),
    )
    prompt = [5, 131_071, 40_000, 70_001]
    streams = [rng_stream(2, "a", number, 6) for number in range(3)]
    [found] = generate(policy, [prompt], streams, SamplingParams(1.0, n=3, cache=cache))
    expected = []
    for own in streams:  # the plain way: the whole text is read again for each token
        ids = [*prompt]
        for place in range(6):
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[:, -1]
            ids.append(int(sample_token(logits, own[place : place + 1], temperature=1.0, top_p=1.0)))
        expected.append(ids[len(prompt) :])
    assert found == expected
    assert max(max(ids) for ids in found) > 65_536
    assert sum(i > 32_767 for ids in found for i in ids) > 9  # half of all would be lost or turned
