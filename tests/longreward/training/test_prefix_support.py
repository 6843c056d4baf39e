import json
import logging
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from preference_pairs import make_pair
from tiny_sizes import TINY_SIZES
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    NemotronConfig,
    NemotronForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from longreward.data.formats import write_pairs
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.training import trainers
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.prefix import attention as prefix_attention
from longreward.training.prefix import support as prefix_support
from longreward.training.prefix.attention import (
    AttentionOptions,
    SharedPrefixError,
    eager_kernel,
    flash_kernel,
    sdpa_kernel,
    shared_prefix_attention,
)
from longreward.training.prefix.sharing import PairCollator, share_prefix
from longreward.training.prefix.support import (
    hidden_state_difference,
    unsupported_config_reason,
    unsupported_reason,
)

SIZES = {
    "vocab_size": 50,
    **TINY_SIZES,
}


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_plain_model_supported(attention, dtype):
    model = llama().to(dtype)
    model.set_attn_implementation(attention)
    assert unsupported_reason(model, longest=10_000) is None
    assert model.config._attn_implementation == attention


def test_learned_positions_supported():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, nrow_positions=64)).eval()
    assert unsupported_reason(model, longest=64) is None


@pytest.mark.parametrize(("longest", "refused"), [(64, False), (65, True)])
def test_sliding_window_must_cover_longest_text(longest, refused):
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=64)).eval()
    reason = unsupported_reason(model, longest=longest)
    assert (reason is not None) is refused
    assert unsupported_config_reason(model, longest=longest) == reason  # what preflight knows without weights
    if reason:
        assert "64 tokens back, and the longest text has 65" in reason


def test_disabled_window_ignored():
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, sliding_window=8, use_sliding_window=False)).eval()
    assert unsupported_reason(model, longest=10_000) is None


def test_window_of_zero_ignored():
    model = Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            **SIZES,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            router_aux_loss_coef=0.0,
        )
    ).eval()
    assert model.config.sliding_window == 0
    assert unsupported_reason(model, longest=10_000) is None


def gemma3(**changes):
    torch.manual_seed(0)
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**SIZES, "head_dim": 8, "pad_token_id": 0, **changes})).eval()


@pytest.mark.parametrize(("longest", "refused"), [(40, False), (41, True)])
def test_window_of_layer_must_cover_longest_text(longest, refused):
    model = gemma3(sliding_window=512)
    model.model.layers[1].self_attn.sliding_window = 40
    reason = unsupported_reason(model, longest=longest)
    assert reason == ("a layer of this model sees 40 tokens back, and the longest text has 41" if refused else None)


def test_bidirectional_attention_unsupported():
    model = gemma3(sliding_window=64, use_bidirectional_attention=True)
    assert unsupported_reason(model, longest=50) == "its tokens see those behind them (bidirectional attention)"
    assert "bidirectional" in unsupported_reason(llama(is_causal=False), longest=20)
    unmarked = llama()
    for layer in unmarked.model.layers:
        layer.self_attn.is_causal = False  # which no config tells
    assert "its hidden states differ" in unsupported_reason(unmarked, longest=20)


@pytest.mark.parametrize("kind", ["linear_attention", "chunked_attention", "mamba"])
def test_recurrent_and_chunked_layers_unsupported(kind):
    model = llama()
    model.config.layer_types = ["full_attention", kind]
    assert unsupported_reason(model, longest=20) == f"it has layers of {kind}, which read a row as one text"


@pytest.mark.parametrize(("weight", "refused"), [(0.02, True), (0.0, False)])
def test_experts_with_balancing_loss_unsupported(weight, refused):
    config = MixtralConfig(**SIZES, num_local_experts=2, router_aux_loss_coef=weight, sliding_window=None)
    reason = unsupported_reason(MixtralForCausalLM(config).eval(), longest=20)
    assert (reason is not None and "router_aux_loss_coef" in reason) is refused


def test_flex_attention_unsupported():
    model = llama()
    model.config._attn_implementation = "flex_attention"
    assert unsupported_reason(model, longest=20).startswith("its attention is flex_attention")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trial_detects_different_hidden_states(dtype, monkeypatch):
    monkeypatch.setattr(prefix_attention, "_select_tokens", lambda states, branch: states[:, :, : branch[-1][1]])
    assert "on trial texts its hidden states differ by" in unsupported_reason(llama().to(dtype), longest=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trial_detects_missing_score_cap_in_any_precision(dtype, monkeypatch):
    def forgets_softcap(module, query, key, value, options):
        return eager_kernel(module, query, key, value, replace(options, softcap=None))

    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, head_dim=8, pad_token_id=0, attn_logit_softcapping=5.0)
    model = Gemma2ForCausalLM(config).to(dtype).eval()
    model.set_attn_implementation("eager")
    assert unsupported_reason(model, longest=20) is None
    attention_functions = prefix_attention.ALL_ATTENTION_FUNCTIONS
    monkeypatch.setitem(
        attention_functions._global_mapping, "shared_prefix_eager", partial(shared_prefix_attention, forgets_softcap)
    )
    assert "its hidden states differ" in unsupported_reason(model, longest=20)


def test_trial_computes_in_float32_and_restores_weights():
    model = llama().to(torch.bfloat16)
    model.model.register_parameter("of_no_layer", torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)))
    before = {name: (weight.data_ptr(), weight.dtype) for name, weight in model.named_parameters()}
    dtypes = set()
    hook = model.model.layers[1].mlp.register_forward_hook(lambda module, names, out: dtypes.add(out.dtype))
    assert hidden_state_difference(model, longest=20) < 5e-6
    hook.remove()
    assert dtypes == {torch.float32}  # so small a model may come out the same in bfloat16
    assert {name: (weight.data_ptr(), weight.dtype) for name, weight in model.named_parameters()} == before

    def fail(*args, **kwargs):
        raise RuntimeError("half way")

    hook = model.model.layers[1].mlp.register_forward_hook(fail)
    assert unsupported_reason(model, longest=20) == "a self-check failed with RuntimeError: half way"
    hook.remove()
    assert {name: (weight.data_ptr(), weight.dtype) for name, weight in model.named_parameters()} == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("difference", "refused"), [(5e-5, False), (2e-4, True), (0.01, True), (float("nan"), True)])
def test_trial_tolerates_rounding_only(difference, refused, monkeypatch):
    monkeypatch.setattr(prefix_support, "hidden_state_difference", lambda model, longest: difference)
    assert (unsupported_reason(llama().to(torch.bfloat16), longest=20) is not None) is refused


def test_trial_replaces_flash_attention_by_eager(monkeypatch):
    model = llama().to(torch.bfloat16)
    model.config._attn_implementation = "flash_attention_2"
    names = []

    def set_attention(name):  # transformers' own wants the package flash-attn
        names.append(name)
        model.config._attn_implementation = name

    monkeypatch.setattr(model, "set_attn_implementation", set_attention)
    assert unsupported_reason(model, longest=20) is None
    assert names == ["eager", "shared_prefix_eager", "eager", "flash_attention_2"]


def test_first_process_decides_for_all(monkeypatch):
    def broadcast(objects):
        assert objects == [None]
        return ["what the first one found"]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(prefix_support, "broadcast_object_list", broadcast)
    monkeypatch.setattr(prefix_support, "hidden_state_difference", lambda model, longest: pytest.fail("tried"))
    assert unsupported_reason(llama(), longest=20) == "what the first one found"


def test_model_without_keyword_arguments_unsupported():
    model = NemotronForCausalLM(NemotronConfig(**SIZES)).eval()
    assert unsupported_reason(model, longest=20) == (
        "NemotronForCausalLM does not pass keyword arguments on to its attention"
    )


def test_unknown_attention_argument_refused_unless_none():
    model = llama()
    batch = PairCollator(0)([{"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8, 9]}])
    share_prefix(model)
    known = {"input_ids": batch["input_ids"], "packed_texts": batch["packed_texts"], "use_cache": False}
    plain = model.base_model(**known).last_hidden_state
    assert torch.equal(model.base_model(**known, block_indices=None).last_hidden_state, plain)
    with pytest.raises(SharedPrefixError, match="LlamaAttention passes block_indices to its attention"):
        model.base_model(**known, block_indices=torch.zeros(1))


def test_attention_mask_refused():
    query, key, value = states(5)
    with pytest.raises(SharedPrefixError, match="Linear passes attention_mask to its attention"):
        shared_prefix_attention(
            eager_kernel, torch.nn.Linear(1, 1), query, key, value, torch.zeros(1), packed_row=packed_row(5)
        )


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        (((6, 2, 4),), {"sliding_window": 9}, "sees 9 tokens back, and the longest text has 10"),
        (((3, 1, 1), (6, 2, 4)), {"sliding_window": 9}, "sees 9 tokens back, and the longest text has 10"),
        (((6, 2, 4),), {"is_causal": False}, "Module lets tokens see those behind them"),
        (((6, 2, 4),), {"sliding_window": 10, "is_causal": True}, None),
        (((6, 2, 4),), {"sliding_window": -1}, None),
        (((3, 1, 1), (6, 2, 4)), {}, None),
    ],
)
def test_each_batch_checked_against_layer(row, options, reason):
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    tokens = sum(map(sum, row))
    branches = []
    for prompt, chosen, rejected in row:
        start = branches[-1][-1][1] if branches else 0
        end = start + prompt + chosen
        branches += [((start, end),), ((start, start + prompt), (end, end + rejected))]
    arguments = {"packed_row": {"branches": tuple(branches)}, **options}
    query, key, value = states(tokens)
    if reason is None:
        result, _ = shared_prefix_attention(eager_kernel, module, query, key, value, None, **arguments)
        assert result.shape[1] == tokens
        return
    with pytest.raises(SharedPrefixError, match=reason):
        shared_prefix_attention(eager_kernel, module, query, key, value, None, **arguments)


def packed_row(prompt_and_chosen: int, prompt: int = 0, rejected: int = 0):
    """The row of a pair."""
    first = ((0, prompt_and_chosen),)
    if not rejected:
        return {"branches": (first,)}
    return {"branches": (first, ((0, prompt), (prompt_and_chosen, prompt_and_chosen + rejected)))}


HEADS, WIDTH = 4, 8
SHARED = {"scaling": 0.3, "dropout": 0.0}


def states(tokens: int):
    generator = torch.Generator().manual_seed(tokens)
    query, key, value = (torch.randn(1, heads, tokens, WIDTH, generator=generator) * 3 for heads in (HEADS, 2, 2))
    return query, key, value


def by_hand(query, key, value, *, softcap=None, sinks=None):
    """Attention of one causal text, a query at a time."""
    out = torch.zeros(1, query.shape[2], HEADS, WIDTH)
    for head in range(HEADS):
        for at in range(query.shape[2]):
            scores = key[0, head // 2, : at + 1] @ query[0, head, at] * SHARED["scaling"]
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            weights = scores.exp() / (scores.exp().sum() + (0 if sinks is None else sinks[head].exp()))
            out[0, at, head] = weights @ value[0, head // 2, : at + 1]
    return out


@pytest.mark.parametrize("causal", [eager_kernel, flash_kernel], ids=["eager", "flash"])
@pytest.mark.parametrize("name", ["softcap", "s_aux"])
def test_score_caps_and_sinks_equal_separate_texts(causal, name, monkeypatch):
    def flash(module, query, key, value, mask, *, softcap, s_aux, is_causal, scaling, dropout):
        assert (mask, is_causal) == (None, True)
        return eager_kernel(module, query, key, value, AttentionOptions(scaling, dropout, softcap, s_aux)), None

    monkeypatch.setitem(prefix_attention.ALL_ATTENTION_FUNCTIONS, "flash_attention_2", flash)
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    options = {"softcap": {"softcap": 2.0}, "s_aux": {"s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0])}}[name]
    query, key, value = states(6 + 3 + 5)  # prompt, chosen, rejected
    result, _ = shared_prefix_attention(
        causal, module, query, key, value, None, packed_row=packed_row(9, 6, 5), **SHARED, **options
    )
    rejected = [*range(6), *range(9, 14)]
    of_chosen = by_hand(
        *(one[:, :, :9] for one in (query, key, value)), softcap=options.get("softcap"), sinks=options.get("s_aux")
    )
    of_rejected = by_hand(
        *(one[:, :, rejected] for one in (query, key, value)),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
    )
    torch.testing.assert_close(result, torch.cat([of_chosen, of_rejected[:, 6:]], dim=1), rtol=1e-4, atol=1e-5)
    with pytest.raises(SharedPrefixError, match=f"{name}.*sdpa cannot"):
        shared_prefix_attention(
            sdpa_kernel, module, query, key, value, None, packed_row=packed_row(9, 6, 5), **SHARED, **options
        )


@pytest.mark.parametrize("kernel", [sdpa_kernel, eager_kernel])
def test_kernels_apply_dropout(kernel):
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    out = kernel(module, *states(5), AttentionOptions(dropout=1.0))
    assert out.abs().max() == 0
    assert kernel(module, *states(5), AttentionOptions()).abs().min() > 0


def run_training(tmp_path, base, **changes):
    pair = make_pair(
        1, "anna is the mayor .", "ben .", context="anna is the mayor and ben was it .", query="who is mayor ?"
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
        log=lambda step, result: figures.append(result),
    )
    return figures


def test_training_is_same_with_and_without_sharing(tmp_path, tiny_policy):
    shared = run_training(tmp_path, tiny_policy, prefix_sharing="on")
    stock = run_training(tmp_path, tiny_policy, prefix_sharing="off")
    for one, other in zip(shared, stock, strict=True):
        assert one["num_tokens"] == other["num_tokens"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    assert shared[0]["loss"] != shared[1]["loss"]


def test_unsupported_model_logged_with_auto_and_error_with_on(tmp_path, tiny_policy, caplog):
    folder = tmp_path / "experts"
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    config = MixtralConfig(**SIZES, num_local_experts=2, bos_token_id=2, eos_token_id=3, max_position_embeddings=64)
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        run_training(tmp_path, folder, prefix_sharing="auto")
    assert "prefix sharing is off" in caplog.text
    assert "router_aux_loss_coef" in caplog.text
    with pytest.raises(PolicyError, match=r"train\.prefix_sharing is on, and this model cannot: its loss"):
        run_training(tmp_path, folder, prefix_sharing="on")


def test_failed_self_check_disables_sharing(tmp_path, tiny_policy, caplog, monkeypatch):
    def fail(model, *, longest):
        raise ZeroDivisionError("a model's own code")

    monkeypatch.setattr(prefix_support, "hidden_state_difference", fail)
    monkeypatch.setattr(trainers, "share_prefix", lambda model: pytest.fail("shared"))
    with caplog.at_level(logging.WARNING):
        figures = run_training(tmp_path, tiny_policy, prefix_sharing="auto")
    assert len(figures) == 3
    assert (
        "prefix sharing is off, so prefixes that texts share are computed for each text: a self-check failed with "
        "ZeroDivision" in caplog.text
    )
    with pytest.raises(PolicyError, match="prefix_sharing is on, and this model cannot: a self-check failed"):
        run_training(tmp_path, tiny_policy, prefix_sharing="on")


def test_window_compared_with_longest_text_of_data(tmp_path, tiny_policy, caplog):
    folder = tmp_path / "windows"
    sizes = {**SIZES, "bos_token_id": 2, "eos_token_id": 3, "max_position_embeddings": 64, "sliding_window": 20}
    MistralForCausalLM(MistralConfig(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_policy).save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        run_training(tmp_path, folder)
    assert "some of its layers see 20 tokens back, and the longest text has 22" in caplog.text


def test_model_with_dropout_starts_at_reference(tmp_path, tiny_policy):
    folder = tmp_path / "drops"
    shutil.copytree(tiny_policy, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    figures = run_training(tmp_path, folder)
    assert figures[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert figures[2]["rewards/margins"] != 0
    assert json.loads((tmp_path / "out/config.json").read_text())["attention_dropout"] == 0.5
