"""One cache for all responses to a prompt gives the logits of one cache per response."""

import pytest
import torch
from tiny_sizes import TINY_SIZES
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Glm4Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    NemotronConfig,
    Qwen3Config,
)

from longreward.models import shared_cache
from longreward.models.kv_cache import ReplicatedCache, prefill
from longreward.models.shared_cache import SharedCacheError, SharedPrefixCache, unsupported_reason

SIZES = {**TINY_SIZES, "vocab_size": 60, "max_position_embeddings": 256, "pad_token_id": 0}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "glm4": Glm4Config(**SIZES, head_dim=8),
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3),
}
PROMPTS = [[4 + (7 * index + length) % 56 for index in range(length)] for length in (9, 21, 14)]
N = 3


def make_model(config, attention="sdpa", dtype=torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
@torch.inference_mode()
def test_logits_equal_those_of_replicated_caches_while_rows_leave(kind, attention):
    model = make_model(CONFIGS[kind], attention)
    assert unsupported_reason(model) is None
    state = [prefill(model, PROMPTS, pad_id=0, device=torch.device("cpu")) for _ in range(2)]
    shared, replicated = SharedPrefixCache(model, state[0], N), ReplicatedCache(model, state[1], N)
    generator = torch.Generator().manual_seed(1)
    for kept in (None, [0, 2, 3, 4, 6, 7, 8], None, [0, 1, 4, 5], [3]):  # the second prompt loses all its rows
        rows = len(shared.positions)
        if kept is not None:
            assert shared.select_rows(torch.tensor(kept))
            assert replicated.select_rows(torch.tensor(kept))
            rows = len(kept)
        tokens = torch.randint(4, 60, (rows,), generator=generator)
        expected = replicated.next_logits(tokens)
        with pytest.raises(SharedCacheError, match="outside of its attention"):
            shared.next_logits(tokens)
        with shared.attention():
            logits = shared.next_logits(tokens)
        assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MistralConfig(**SIZES, sliding_window=8), "some layers have windows"),
        (Gemma2Config(**SIZES, head_dim=8, layer_types=["full_attention"] * 2), "softcap"),
        (
            GptOssConfig(
                **SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2, layer_types=["full_attention"] * 2
            ),
            "s_aux",
        ),
        (NemotronConfig(**SIZES), "does not get the arguments"),
    ],
)
@torch.inference_mode()
def test_model_that_cannot_share_is_recognized(config, reason):
    model = make_model(config, "eager")
    assert reason in unsupported_reason(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_trial_detects_different_logits(dtype, monkeypatch):
    model = make_model(CONFIGS["llama"], dtype=dtype)
    assert unsupported_reason(model) is None
    original = shared_cache.SharedPrefixCache.__init__

    def skip_first_prompt_token(self, *args):
        original(self, *args)
        self.prompts = [(key[:, :, 1:], value[:, :, 1:]) for key, value in self.prompts]

    monkeypatch.setattr(shared_cache.SharedPrefixCache, "__init__", skip_first_prompt_token)
    assert "its logits differ" in unsupported_reason(make_model(CONFIGS["llama"], dtype=dtype))


@torch.inference_mode()
def test_failing_trial_is_the_reason(monkeypatch):
    def fail(left, right):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(shared_cache, "_product", fail)
    assert unsupported_reason(make_model(CONFIGS["llama"])) == "a trial failed with RuntimeError: no such kernel"
