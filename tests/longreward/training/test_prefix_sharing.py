"""Packed texts against stock TRL, in float32: the same loss, log-probabilities, gradients and trained weights."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
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
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl_step import DPO_SETTINGS, SETTINGS, TrainingStep, compute_step, make_model

from longreward.errors import PolicyError
from longreward.training.prefix import sharing as prefix_sharing
from longreward.training.prefix.sharing import ExampleCollator, PairCollator, share_prefix
from longreward.training.prefix.support import unsupported_reason
from longreward.training.prefix.text_tree import build_text_tree

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")

TOWN = "the town of anna is north of the river and the bridge is old. "
PAIRS = [
    (TOWN + "where is the town?", " it is north.", " south"),
    ("who built it?", " ben built it in the first year and cara opened it", " anna."),
    (TOWN + "where is the bridge?", " it is in the town.", " it is north of cara"),
    (
        "when was the bridge opened? it says: in the year of the two rivers.",
        " in the year",
        " it was never opened at all",
    ),
    (TOWN + "is the bridge old?", " it is.", " no"),
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


def make_trainer(
    model,
    tokenizer,
    tmp_path,
    *,
    packed: bool,
    kind: str = "dpo",
    size: int = len(PAIRS),
    lora=None,
    ref_model=None,
    **arguments,
):
    if packed:
        share_prefix(model)
        if ref_model is not None:
            share_prefix(ref_model)
    settings = {
        "output_dir": str(tmp_path / ("packed" if packed else "stock")),
        "per_device_train_batch_size": size,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        **arguments,
    }
    if kind == "sft":
        return SFTTrainer(
            model,
            SFTConfig(**SETTINGS | settings),
            data_collator=ExampleCollator(tokenizer.pad_token_id) if packed else None,
            train_dataset=Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer, _ in PAIRS]),
            processing_class=tokenizer,
            peft_config=lora,
        )
    texts = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in PAIRS]
    return DPOTrainer(
        model,
        ref_model,
        DPOConfig(**DPO_SETTINGS | settings),
        data_collator=PairCollator(tokenizer.pad_token_id) if packed else None,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
        peft_config=lora,
    )


def assert_equal(packed: TrainingStep, stock: TrainingStep) -> None:
    assert packed.loss == pytest.approx(stock.loss, rel=1e-5)
    assert packed.metrics == pytest.approx(stock.metrics, rel=1e-4, abs=1e-5)
    assert packed.gradients.keys() == stock.gradients.keys()
    for name, gradient in stock.gradients.items():
        scale = gradient.abs().max() + 1e-6
        assert (packed.gradients[name] - gradient).abs().max() < 2e-4 * scale, name


def compute_steps(
    tokenizer, tmp_path, *, rows: int = len(PAIRS), model=None, ref_model=None, **options
) -> tuple[TrainingStep, TrainingStep]:
    """Return the step with shared prefixes and that of TRL by itself, each on copies of the models."""
    model = make_architecture() if model is None else model

    def step(packed: bool) -> TrainingStep:
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


KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"kind": "dpo", "precompute_ref_log_probs": True},
    "sft": {"kind": "sft"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_gradients_equal_stock_trl(architecture, attention, kind, tokenizer, tmp_path):
    model = make_architecture(architecture, attention)
    packed, stock = compute_steps(tokenizer, tmp_path, model=model, **KINDS[kind])
    assert_equal(packed, stock)
    assert max(float(g.abs().max()) for g in stock.gradients.values()) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("architecture", "attention", "changes"),
    [
        ("gemma2", "eager", {"attn_logit_softcapping": 3.0, "sliding_window": 512}),  # caps its scores
        ("gemma3", "sdpa", {"sliding_window": 128}),  # windows in some layers, wider than the longest text
        ("gpt_oss", "eager", {"num_local_experts": 4, "sliding_window": 128, **EXPERTS}),  # sinks
        ("qwen2_moe", "sdpa", {"num_experts": 4, "moe_intermediate_size": 16, **EXPERTS}),  # sliding_window 0
    ],
)
def test_gradients_equal_stock_trl_with_special_attention(architecture, attention, changes, kind, tokenizer, tmp_path):
    model = make_architecture(architecture, attention, **changes)
    assert unsupported_reason(model.eval(), longest=100) is None
    packed, stock = compute_steps(tokenizer, tmp_path, model=model, **KINDS[kind])
    assert_equal(packed, stock)
    if architecture == "gpt_oss":
        assert stock.gradients["model.layers.0.self_attn.sinks"].abs().max() > 1e-4


def test_fixture_has_token_that_merges_across_boundary(tokenizer):
    prompt, chosen, _ = PAIRS[1]
    alone, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + chosen)["input_ids"]
    assert whole[: len(alone)] != alone


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_unequal_lengths_with_reference_model(rows, tokenizer, tmp_path):
    packed, stock = compute_steps(tokenizer, tmp_path, rows=rows, ref_model=make_reference())
    assert_equal(packed, stock)
    assert stock.metrics["rewards/margins"] != 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant, kind, tokenizer, tmp_path):
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    packed, stock = compute_steps(tokenizer, tmp_path, **KINDS[kind], **options)
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


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapter_of_sft(checkpointing, tokenizer, tmp_path):
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    packed, stock = compute_steps(tokenizer, tmp_path, kind="sft", lora=lora, gradient_checkpointing=checkpointing)
    assert_equal(packed, stock)
    assert stock.metrics.keys() == {"entropy", "mean_token_accuracy", "num_tokens"}


@pytest.mark.parametrize(("kind", "size"), [("dpo", 1), ("dpo", 3), ("sft", 2), ("sft", 5)])
def test_three_steps_give_same_weights(kind, size, tokenizer, tmp_path):
    ends, losses = [], []
    for packed in (True, False):
        torch.manual_seed(0)
        trainer = make_trainer(
            make_architecture(),
            tokenizer,
            tmp_path,
            packed=packed,
            kind=kind,
            size=size,
            max_steps=3,
            ref_model=make_reference() if kind == "dpo" else None,
        )
        trainer.train()
        ends.append({name: p.detach().clone() for name, p in trainer.model.named_parameters()})
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1][0] != losses[1][2]
    for name, weight in ends[1].items():
        assert torch.allclose(ends[0][name], weight, atol=2e-4), name


def change_tree(monkeypatch, change) -> None:
    def build(texts):
        return change(build_text_tree(texts))

    monkeypatch.setattr(prefix_sharing, "build_text_tree", build)


@pytest.mark.parametrize("kind", KINDS)
def test_continued_positions_detected(kind, tokenizer, tmp_path, monkeypatch):
    change_tree(monkeypatch, lambda tree: replace(tree, positions=np.arange(len(tree.tokens))))
    with pytest.raises(AssertionError):
        assert_equal(*compute_steps(tokenizer, tmp_path, **KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_text_attending_to_another_detected(kind, tokenizer, tmp_path, monkeypatch):
    change_tree(monkeypatch, lambda tree: replace(tree, branches=(((0, len(tree.tokens)),),)))
    with pytest.raises(AssertionError):
        assert_equal(*compute_steps(tokenizer, tmp_path, **KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_shifted_answers_detected(kind, tokenizer, tmp_path, monkeypatch):
    original = prefix_sharing.span_indices
    monkeypatch.setattr(prefix_sharing, "span_indices", lambda branch: np.roll(original(branch), 1))
    with pytest.raises(AssertionError):
        assert_equal(*compute_steps(tokenizer, tmp_path, rows=1, **KINDS[kind]))


def test_shared_document_stands_once(tokenizer):
    rows = [{"input_ids": tokenizer(prompt + answer)["input_ids"]} for prompt, answer, _ in PAIRS]
    batch = ExampleCollator(pad_token_id=0)([{**row, "labels": row["input_ids"]} for row in rows])
    town = len(tokenizer(TOWN)["input_ids"])
    tokens = batch["packed_texts"]["input_ids"].shape[1]
    assert sum(len(row["input_ids"]) for row in rows) - 2 * town - 20 < tokens
    assert tokens <= sum(len(row["input_ids"]) for row in rows) - 2 * town


def test_batch_of_pairs_by_hand():
    rows = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 1], "rejected_ids": [9], "ref_chosen_logps": -1.0},
        {"prompt_ids": [4], "chosen_ids": [8], "rejected_ids": [9, 4, 1], "ref_chosen_logps": -2.0},
        {"prompt_ids": [5, 6, 2], "chosen_ids": [3], "rejected_ids": [4], "ref_chosen_logps": -3.0},
    ]
    batch = PairCollator(pad_token_id=0)(rows)
    packed = batch["packed_texts"]
    # 4 8 | 9 4 1 and 5 6 2 3 | 4 and, after 5 6, 7 8 1 | 9
    assert packed["input_ids"].tolist() == [[4, 8, 9, 4, 1, 5, 6, 2, 3, 4, 7, 8, 1, 9]]
    assert packed["position_ids"].tolist() == [[0, 1, 1, 2, 3, 0, 1, 2, 3, 3, 2, 3, 4, 3]]
    assert packed["branches"] == (
        ((0, 2),),
        ((0, 1), (2, 5)),
        ((5, 9),),
        ((5, 8), (9, 10)),
        ((5, 7), (10, 13)),
        ((5, 7), (10, 11), (13, 14)),
    )
    assert packed["answers"].tolist() == [
        [10, 11, 12, 0],
        [0, 1, 0, 0],
        [7, 8, 0, 0],
        [10, 13, 0, 0],
        [0, 2, 3, 4],
        [7, 9, 0, 0],
    ]
    assert batch["input_ids"].tolist() == [
        [7, 8, 1, 0],
        [4, 8, 0, 0],
        [2, 3, 0, 0],
        [7, 9, 0, 0],
        [4, 9, 4, 1],
        [2, 4, 0, 0],
    ]
    assert batch["completion_mask"].tolist()[0] == [0, 1, 1, 0]
    assert batch["completion_mask"].sum(dim=1).tolist() == [2, 1, 1, 1, 3, 1]
    assert batch["attention_mask"].sum().item() == 5 + 2 + 4 + 4 + 4 + 4
    assert batch["ref_chosen_logps"].tolist() == [-1.0, -2.0, -3.0]


def test_batch_of_examples_by_hand():
    rows = [
        {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
        {"input_ids": [5, 6, 9], "labels": [-100, -100, 9]},
        {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, -100, 8]},  # the same text, with less of it scored
        {"input_ids": [3, 4], "labels": [3, 4]},  # the first token is never predicted
        {"input_ids": [2, 2], "labels": [-100, -100]},
    ]
    batch = ExampleCollator(pad_token_id=0)(rows)
    assert batch["packed_texts"]["input_ids"].tolist() == [[2, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch["packed_texts"]["branches"] == (((0, 2),), ((2, 4),), ((4, 8),), ((4, 6), (8, 9)))
    assert batch["packed_texts"]["answers"].tolist() == [[5, 6, 7], [5, 8, 0], [6, 7, 0], [2, 3, 0], [1, 0, 0]]
    assert batch["input_ids"].tolist() == [[6, 7, 8], [6, 9, 0], [7, 8, 0], [3, 4, 0], [2, 0, 0]]
    assert batch["labels"].tolist() == [
        [-100, 7, 8],
        [-100, 9, -100],
        [-100, 8, -100],
        [-100, 4, -100],
        [-100, -100, -100],
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 3, 4, 2, 2]


@pytest.mark.parametrize(("prefix", "shared"), [(3, False), (4, True)])
def test_short_common_start_of_long_texts_computed_again(prefix, shared):
    texts = [[7] * prefix + [number] + [9] * 15 for number in (1, 2)]
    tree = build_text_tree(texts)
    assert len(tree.tokens) == 2 * (prefix + 16) - (prefix if shared else 0)


def test_reference_loaded_by_trainer_refused(tokenizer, tmp_path):
    make_architecture().save_pretrained(tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    trainer = make_trainer(model, tokenizer, tmp_path, packed=True)
    with pytest.raises(PolicyError, match="a reference model that the trainer loaded"):
        compute_step(trainer)


def test_stock_batch_refused(tokenizer, tmp_path):
    trainer = make_trainer(make_architecture(), tokenizer, tmp_path, packed=False, precompute_ref_log_probs=True)
    share_prefix(trainer.model)
    with pytest.raises(PolicyError, match="batches must come from PairCollator or ExampleCollator"):
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
