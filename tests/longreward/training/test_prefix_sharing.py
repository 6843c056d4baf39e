"""Packed pairs against stock TRL, in float32: the same loss, log-probabilities, gradients and trained weights."""

import copy
from typing import Any

import pytest
import torch
from datasets import Dataset
from dpo_step import DPO_SETTINGS, DPOStep, compute_step, make_model
from peft import LoraConfig
from tiny_sizes import TINY_SIZES
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GlmConfig,
    GptOssConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)
from trl import DPOConfig, DPOTrainer

from longreward.errors import PolicyError
from longreward.training.prefix import attention as prefix_attention
from longreward.training.prefix import sharing as prefix_sharing
from longreward.training.prefix.sharing import PairCollator, share_prefix
from longreward.training.prefix.support import unsupported_reason

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")

PAIRS = [
    ("the town of anna is north of the river and the bridge is old. where is the town?", " it is north.", " south"),
    ("who built it?", " ben built it in the first year and cara opened it", " anna."),
    (
        "when was the bridge opened? it says: in the year of the two rivers.",
        " in the year",
        " it was never opened at all",
    ),
]
SIZES = {
    **TINY_SIZES,
    "max_position_embeddings": 512,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "glm": GlmConfig, "glm4": Glm4Config}
SPECIAL = {
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
    "gpt_oss": GptOssConfig,
    "qwen2_moe": Qwen2MoeConfig,
}
EXPERTS = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    """Letters and four merges, by one of which a prompt's last letter and an answer's first one are one token."""
    merges = [("?", " "), ("t", "h"), ("th", "e"), ("i", "n")]
    letters = sorted({letter for texts in PAIRS for text in texts for letter in text})
    words = ["<pad>", "</s>", "<unk>", *letters, *(first + second for first, second in merges)]
    bpe = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def make_architecture(name: str = "llama", attention: str = "sdpa", **changes: Any) -> Any:
    return make_model({**CONFIGS, **SPECIAL}[name](vocab_size=120, **{**SIZES, **changes}), attention)


def make_trainer(model, tokenizer, tmp_path, *, packed: bool, size: int = 3, lora=None, ref_model=None, **arguments):
    if packed:
        share_prefix(model)
        if ref_model is not None:
            share_prefix(ref_model)
    settings = {**DPO_SETTINGS, "save_strategy": "no", "logging_steps": 1, **arguments}
    config = DPOConfig(
        output_dir=str(tmp_path / ("packed" if packed else "stock")),
        per_device_train_batch_size=size,
        learning_rate=1e-2,
        use_cpu=True,
        **settings,
    )
    texts = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in PAIRS]
    return DPOTrainer(
        model,
        ref_model,
        config,
        data_collator=PairCollator(tokenizer.pad_token_id) if packed else None,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
        peft_config=lora,
    )


def assert_equal(packed: DPOStep, stock: DPOStep) -> None:
    assert packed.loss == pytest.approx(stock.loss, rel=1e-5)
    assert packed.metrics == pytest.approx(stock.metrics, rel=1e-4, abs=1e-5)
    assert packed.gradients.keys() == stock.gradients.keys()
    for name, gradient in stock.gradients.items():
        scale = gradient.abs().max() + 1e-6
        assert (packed.gradients[name] - gradient).abs().max() < 2e-4 * scale, name


def compute_steps(
    tokenizer, tmp_path, *, rows: int = 3, model=None, ref_model=None, **options
) -> tuple[DPOStep, DPOStep]:
    """Return the step with shared prefixes and that of TRL by itself, each on copies of the models."""
    model = make_architecture() if model is None else model

    def step(packed: bool) -> DPOStep:
        models = {"model": copy.deepcopy(model), "ref_model": copy.deepcopy(ref_model)}
        return compute_step(
            make_trainer(tokenizer=tokenizer, tmp_path=tmp_path, packed=packed, **models, **options), rows
        )

    return step(True), step(False)


def make_reference() -> Any:
    ref_model = make_architecture()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in ref_model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    return ref_model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_gradients_equal_stock_trl(architecture, attention, tokenizer, tmp_path):
    model = make_architecture(architecture, attention)
    packed, stock = compute_steps(tokenizer, tmp_path, model=model, precompute_ref_log_probs=True)
    assert_equal(packed, stock)
    assert max(float(g.abs().max()) for g in stock.gradients.values()) > 1e-2


@pytest.mark.parametrize(
    ("architecture", "attention", "changes"),
    [
        ("gemma2", "eager", {"attn_logit_softcapping": 3.0, "sliding_window": 512}),  # caps its scores
        ("gemma3", "sdpa", {"sliding_window": 128}),  # windows in some layers, wider than the longest pair
        ("gpt_oss", "eager", {"num_local_experts": 4, "sliding_window": 128, **EXPERTS}),  # sinks
        ("qwen2_moe", "sdpa", {"num_experts": 4, "moe_intermediate_size": 16, **EXPERTS}),  # sliding_window 0
    ],
)
def test_gradients_equal_stock_trl_with_special_attention(architecture, attention, changes, tokenizer, tmp_path):
    model = make_architecture(architecture, attention, **changes)
    assert unsupported_reason(model.eval(), longest=100) is None
    packed, stock = compute_steps(tokenizer, tmp_path, model=model, precompute_ref_log_probs=True)
    assert_equal(packed, stock)
    if architecture == "gpt_oss":
        assert stock.gradients["model.layers.0.self_attn.sinks"].abs().max() > 1e-4


def test_fixture_has_token_that_merges_across_boundary(tokenizer):
    prompt, chosen, _ = PAIRS[1]
    alone, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + chosen)["input_ids"]
    assert whole[: len(alone)] != alone


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_unequal_lengths_with_reference_model(rows, tokenizer, tmp_path):
    packed, stock = compute_steps(tokenizer, tmp_path, rows=rows, ref_model=make_reference())
    assert_equal(packed, stock)
    assert stock.metrics["rewards/margins"] != 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant, tokenizer, tmp_path):
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    packed, stock = compute_steps(tokenizer, tmp_path, precompute_ref_log_probs=True, **options)
    assert_equal(packed, stock)


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_disabled_adapter_is_reference(precompute, checkpointing, tokenizer, tmp_path):
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    packed, stock = compute_steps(
        tokenizer,
        tmp_path,
        lora=lora,
        precompute_ref_log_probs=precompute,
        gradient_checkpointing=checkpointing,
    )
    assert_equal(packed, stock)
    assert abs(stock.metrics["rewards/margins"]) > 1e-3


def test_three_steps_give_same_weights(tokenizer, tmp_path):
    ends, losses = [], []
    for packed in (True, False):
        torch.manual_seed(0)
        trainer = make_trainer(
            make_architecture(), tokenizer, tmp_path, packed=packed, size=1, max_steps=3, ref_model=make_reference()
        )
        trainer.train()
        ends.append({name: p.detach().clone() for name, p in trainer.model.named_parameters()})
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1][0] != losses[1][2]
    for name, weight in ends[1].items():
        assert torch.allclose(ends[0][name], weight, atol=2e-4), name


def test_continued_positions_detected(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(
        prefix_sharing, "row_positions", lambda lengths, longest, device: torch.arange(longest).repeat(len(lengths), 1)
    )
    packed, stock = compute_steps(tokenizer, tmp_path, precompute_ref_log_probs=True)
    with pytest.raises(AssertionError):
        assert_equal(packed, stock)


def test_rejected_attending_to_chosen_detected(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(
        prefix_attention, "_attend_pair", lambda attend, query, key, value, lengths: attend(query, key, value)
    )
    packed, stock = compute_steps(tokenizer, tmp_path, precompute_ref_log_probs=True)
    with pytest.raises(AssertionError):
        assert_equal(packed, stock)


def test_shifted_responses_detected(tokenizer, tmp_path, monkeypatch):
    original = prefix_sharing.response_indices

    def one_early(lengths, device):
        return (original(lengths, device) - 1).clamp(min=0)

    monkeypatch.setattr(prefix_sharing, "response_indices", one_early)
    packed, stock = compute_steps(tokenizer, tmp_path, rows=1, precompute_ref_log_probs=True)
    with pytest.raises(AssertionError):
        assert_equal(packed, stock)


def test_collated_batch_by_hand():
    rows = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 1], "rejected_ids": [9], "ref_chosen_logps": -1.0},
        {"prompt_ids": [5], "chosen_ids": [8], "rejected_ids": [9, 4, 1], "ref_chosen_logps": -2.0},
    ]
    batch = PairCollator(pad_token_id=0)(rows)
    assert batch["packed_pairs"]["input_ids"].tolist() == [[5, 6, 7, 8, 1, 9], [5, 8, 9, 4, 1, 0]]
    assert batch["packed_pairs"]["lengths"] == ((3, 2, 1), (1, 1, 3))
    assert batch["input_ids"].tolist() == [[7, 8, 1, 0], [5, 8, 0, 0], [7, 9, 0, 0], [5, 9, 4, 1]]
    assert batch["completion_mask"].tolist() == [[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1]]
    assert batch["attention_mask"].sum().item() == 5 + 2 + 4 + 4
    assert batch["ref_chosen_logps"].tolist() == [-1.0, -2.0]
    lengths, device = batch["packed_pairs"]["lengths"], torch.device("cpu")
    assert prefix_sharing.row_positions(lengths, 6, device).tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 1, 2, 3, 0]]
    assert prefix_sharing.response_indices(lengths, device).tolist() == [
        [2, 3, 4, 0],
        [0, 1, 0, 0],
        [2, 5, 0, 0],
        [0, 2, 3, 4],
    ]


def test_reference_loaded_by_trainer_refused(tokenizer, tmp_path):
    make_architecture().save_pretrained(tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    trainer = make_trainer(model, tokenizer, tmp_path, packed=True)
    with pytest.raises(PolicyError, match="a reference model that the trainer loaded"):
        compute_step(trainer)


def test_stock_batch_refused(tokenizer, tmp_path):
    trainer = make_trainer(make_architecture(), tokenizer, tmp_path, packed=False, precompute_ref_log_probs=True)
    share_prefix(trainer.model)
    with pytest.raises(PolicyError, match="batches must come from PairCollator"):
        compute_step(trainer)


def test_remove_restores_model():
    model, ids = make_architecture(), torch.tensor([[5, 6, 7, 8]])
    before = model(ids).logits
    shared = share_prefix(model)
    with pytest.raises(PolicyError):
        model(ids)
    shared.remove()
    assert torch.equal(model(ids).logits, before)
    assert model.config._attn_implementation == "sdpa"
