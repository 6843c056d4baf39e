"""One step of a trainer of TRL, in tests that compare shared prefixes with TRL by itself."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM

SETTINGS: dict[str, Any] = {
    "max_length": None,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
}
DPO_SETTINGS: dict[str, Any] = {
    **SETTINGS,
    "beta": 0.15,
    "loss_type": ["sigmoid", "sft"],
    "loss_weights": [1.0, 0.1],
}


@dataclass
class TrainingStep:
    """What one step computed."""

    loss: float
    metrics: dict[str, float]
    gradients: dict[str, torch.Tensor] = field(repr=False)


def make_model(config: Any, attention: str) -> Any:
    """Return a model of `config` with random float32 weights, of which attention sinks are not zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    for name, weight in model.named_parameters():
        if name.endswith("self_attn.sinks"):
            torch.nn.init.normal_(weight)
    return model


def compute_step(trainer: Any, rows: int | None = None) -> TrainingStep:
    """Compute the loss and the gradients of one batch with the first `rows` rows (None: all)."""
    trainer.model.train()
    if trainer.args.gradient_checkpointing:  # train() would enable it
        trainer.model.activation_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        assert trainer.model.is_gradient_checkpointing
    batch = trainer._prepare_inputs(trainer.data_collator(list(trainer.train_dataset)[:rows]))
    loss = trainer.compute_loss(trainer.accelerator.prepare_model(trainer.model), batch)  # prepared: with autocast
    loss.backward()
    return TrainingStep(
        loss=loss.item(),
        metrics={name: values[-1] for name, values in trainer._metrics["train"].items()},
        gradients={
            name: weight.grad.float().cpu()
            for name, weight in trainer.model.named_parameters()
            if weight.grad is not None
        },
    )
