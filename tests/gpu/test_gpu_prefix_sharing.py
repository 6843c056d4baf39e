"""Shared prefixes against unmodified TRL on a GPU: loss, gradients and logged metrics of a DPO step."""

import copy
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from datasets import Dataset
from gpu_sizes import GPU_SIZES
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import (
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
from trl_step import DPO_SETTINGS, TrainingStep, compute_step, make_model

from longreward.training.prefix.sharing import PairCollator, share_prefix
from longreward.training.prefix.support import unsupported_reason

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")

SIZES = {**GPU_SIZES, "bos_token_id": None, "eos_token_id": 1}
EXPERTS = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.0}
ARCHITECTURES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "glm": GlmConfig(**SIZES),
    "glm4": Glm4Config(**SIZES),
    "gemma2": Gemma2Config(**SIZES, attn_logit_softcapping=3.0, sliding_window=4096),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=4096),
    "gpt_oss": GptOssConfig(**SIZES, num_local_experts=4, sliding_window=4096, **EXPERTS),
    "qwen2_moe": Qwen2MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=64, **EXPERTS),
}
EAGER_ONLY = ("gemma2", "gpt_oss")  # caps and sinks, which sdpa cannot compute
LENGTHS = ((300, 40, 25), (120, 7, 60), (300, 33, 33), (512, 33, 33))
"""Tokens of prompt, chosen and rejected response. Pairs with prompts of one length share all but its last 20 tokens."""


class PreparedDPOTrainer(DPOTrainer):
    """Takes tokenized rows with the reference's log-probabilities as they are."""

    def _prepare_dataset(self, dataset, *args):
        return dataset

    def _precompute_ref_logps(self, dataset, *args):
        return dataset


def make_architecture(architecture: str, device: torch.device, attention: str | None = None) -> Any:
    attention = attention or ("eager" if architecture in EAGER_ONLY else "sdpa")
    return make_model(copy.deepcopy(ARCHITECTURES[architecture]), attention).to(device)


def gradient_difference(step: TrainingStep, other: TrainingStep) -> float:
    """Return the largest difference of a weight's gradients, relative to the norm of the other's gradient."""
    assert step.gradients.keys() == other.gradients.keys()
    return max(
        float((step.gradients[name] - gradient).norm() / (gradient.norm() + 1e-6))
        for name, gradient in other.gradients.items()
    )


def make_rows(lengths: tuple[tuple[int, int, int], ...]) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, SIZES["vocab_size"], (count,), generator=generator).tolist()

    documents = {prompt: tokens(prompt - 20) for prompt, _, _ in lengths}
    return [
        {
            "prompt_ids": documents[prompt] + tokens(20),
            "chosen_ids": tokens(chosen),
            "rejected_ids": tokens(rejected),
            "ref_chosen_logps": -5.0 * chosen,
            "ref_rejected_logps": -6.0 * rejected,
        }
        for prompt, chosen, rejected in lengths
    ]


def take_step(
    model: Any, folder: Any, *, shared: bool, lengths: tuple[tuple[int, int, int], ...] = LENGTHS, **options: Any
) -> TrainingStep:
    """Compute the loss and gradients of one batch on a copy of the model."""
    model = copy.deepcopy(model)
    lora = options.pop("lora", None)
    if shared:
        share_prefix(model)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    torch.manual_seed(1)  # new adapters
    settings = {**DPO_SETTINGS, "precompute_ref_log_probs": True, "use_cpu": model.device.type == "cpu", **options}
    trainer = PreparedDPOTrainer(
        model,
        args=DPOConfig(output_dir=str(folder), per_device_train_batch_size=len(lengths), **settings),
        data_collator=PairCollator(pad_token_id=0) if shared else None,
        train_dataset=Dataset.from_list(make_rows(lengths)),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"),
        peft_config=lora,
    )
    return compute_step(trainer)


def assert_equal_in_float32(shared: TrainingStep, stock: TrainingStep) -> None:
    assert shared.loss == pytest.approx(stock.loss, rel=1e-5)
    assert shared.metrics == pytest.approx(stock.metrics, rel=1e-4, abs=1e-4)
    assert gradient_difference(shared, stock) < 5e-4
    assert max(float(gradient.abs().max()) for gradient in stock.gradients.values()) > 1e-3


def assert_as_precise_as(shared: TrainingStep, stock: TrainingStep, exact: TrainingStep) -> None:
    """Compare two steps in 16 bits with one in float32: sharing must not be less precise than TRL by itself."""
    assert abs(shared.loss - exact.loss) < 2 * abs(stock.loss - exact.loss) + 5e-3 * abs(exact.loss)
    assert gradient_difference(shared, exact) < 1.5 * gradient_difference(stock, exact) + 5e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_step_equals_trl(architecture, device, tmp_path):
    model = make_architecture(architecture, device)
    assert unsupported_reason(copy.deepcopy(model).eval(), longest=600) is None
    shared, stock = (take_step(model, tmp_path, shared=shared) for shared in (True, False))
    assert_equal_in_float32(shared, stock)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "glm4", "gemma3"])
def test_bfloat16_step_is_as_precise_as_trl(architecture, attention, device, tmp_path):
    model = make_architecture(architecture, device, attention)
    exact = take_step(model, tmp_path, shared=False)
    shared, stock = (take_step(model, tmp_path, shared=shared, bf16=True) for shared in (True, False))
    assert_as_precise_as(shared, stock, exact)
    assert stock.loss != exact.loss


@pytest.mark.parametrize("bf16", [False, True])
def test_long_prompt(bf16, device, tmp_path):
    lengths = ((4096, 200, 150),)
    model = make_architecture("llama", device)
    exact = take_step(model, tmp_path, shared=False, lengths=lengths)
    shared = take_step(model, tmp_path, shared=True, lengths=lengths, bf16=bf16)
    if bf16:
        stock = take_step(model, tmp_path, shared=False, lengths=lengths, bf16=True)
        assert_as_precise_as(shared, stock, exact)
    else:
        assert_equal_in_float32(shared, exact)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_and_checkpointing(checkpointing, bf16, device, tmp_path):
    model = make_architecture("llama", device)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    options = {"lora": lora, "gradient_checkpointing": checkpointing}
    exact = take_step(model, tmp_path, shared=False, **options)
    shared = take_step(model, tmp_path, shared=True, bf16=bf16, **options)
    if bf16:
        assert_as_precise_as(shared, take_step(model, tmp_path, shared=False, bf16=True, **options), exact)
    else:
        assert_equal_in_float32(shared, exact)


def test_16_bit_weights_under_adapter(device, tmp_path):
    """An 8B model on one GPU: frozen bfloat16 weights, a float32 adapter, checkpointing."""
    exact = make_architecture("llama", device)
    model = copy.deepcopy(exact).to(torch.bfloat16)
    exact = model.float() if device.type == "cpu" else copy.deepcopy(model).float()
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    options = {"lora": lora, "gradient_checkpointing": True}
    steps = [take_step(model, tmp_path, shared=shared, bf16=True, **options) for shared in (True, False)]
    assert_as_precise_as(*steps, take_step(exact, tmp_path, shared=False, **options))


@pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash-attn is not installed")
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_flash_attention_step_is_as_precise_as_trl(architecture, device, tmp_path):
    exact = take_step(make_architecture(architecture, device), tmp_path, shared=False)
    model = make_architecture(architecture, device, "flash_attention_2")
    shared, stock = (take_step(model, tmp_path, shared=shared, bf16=True) for shared in (True, False))
    assert_as_precise_as(shared, stock, exact)


@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
def test_liger_kernels(device, tmp_path):
    model = make_architecture("llama", device)
    exact = take_step(model, tmp_path, shared=False)
    options = {"use_liger_kernel": True, "bf16": True}
    shared, stock = (take_step(model, tmp_path, shared=shared, **options) for shared in (True, False))
    assert_as_precise_as(shared, stock, exact)
