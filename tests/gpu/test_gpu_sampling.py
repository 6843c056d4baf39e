"""One KV cache for all responses against one per response and against transformers' `generate`, on a GPU."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_sizes import GPU_SIZES
from transformers import AutoModelForCausalLM, Glm4Config, LlamaConfig, Qwen3Config

from longreward.models import generation
from longreward.models.generation import SamplingParams, generate, rng_stream
from longreward.models.kv_cache import ReplicatedCache, prefill
from longreward.models.shared_cache import SharedPrefixCache

CONFIGS = {"llama": LlamaConfig(**GPU_SIZES), "qwen3": Qwen3Config(**GPU_SIZES), "glm4": Glm4Config(**GPU_SIZES)}
PROMPTS = [[2 + (7 * index + length) % 490 for index in range(length)] for length in (900, 61, 2000)]
TOKENS, N = 40, 5


def make_policy(kind: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind], attn_implementation="sdpa", dtype=dtype).eval().to(device)
    return SimpleNamespace(
        model=model,
        encoder=SimpleNamespace(end_ids=tuple(range(1, 500, 20))),
        device=device,
        config=SimpleNamespace(attention="sdpa"),
    )


def sample(policy: Any, prompts: list[list[int]], **options: Any) -> list[list[list[int]]]:
    streams = [rng_stream(5, str(len(prompt)), number, TOKENS) for prompt in prompts for number in range(N)]
    return generate(policy, prompts, streams, SamplingParams(**{"temperature": 1.0, "n": N, **options}))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", CONFIGS)
def test_shared_cache_samples_same_tokens(kind, temperature, device):
    policy = make_policy(kind, device)
    shared = sample(policy, PROMPTS[:1], temperature=temperature, cache="shared")
    assert shared == sample(policy, PROMPTS[:1], temperature=temperature, cache="repeated")
    if temperature == 1:
        assert len({tuple(response) for response in shared[0]}) == N


def test_generate_of_transformers_samples_same_tokens(device, monkeypatch):
    policy = make_policy("llama", device)
    shared = sample(policy, PROMPTS, cache="shared")
    assert len({len(response) for response in shared[0]}) > 1  # some responses end before others
    monkeypatch.setattr(generation, "_needs_transformers", lambda model: True)
    assert sample(policy, PROMPTS) == shared


def test_batched_prompts_give_same_responses_as_single_prompts(device):
    policy = make_policy("llama", device)
    single = [sample(policy, [prompt], cache="shared")[0] for prompt in PROMPTS]
    assert sample(policy, PROMPTS, cache="shared") == single


@torch.inference_mode()
def test_bfloat16_logits_are_as_precise_as_with_replicated_caches(device):
    model = make_policy("llama", device, torch.bfloat16).model
    exact_model = copy.deepcopy(model).float()
    tokens = torch.randint(2, 500, (10, N), generator=torch.Generator().manual_seed(0)).to(device)

    def compute_logits(model: Any, cache_class: Any) -> torch.Tensor:
        cache = cache_class(model, prefill(model, PROMPTS[2:], pad_id=0, device=device), N)
        with cache.attention():
            return torch.stack([cache.next_logits(column).float() for column in tokens])

    exact = compute_logits(exact_model, ReplicatedCache)
    shared, replicated = (
        (compute_logits(model, cache_class) - exact).norm() for cache_class in (SharedPrefixCache, ReplicatedCache)
    )
    assert 0 < shared < 1.2 * replicated
