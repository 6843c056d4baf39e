"""Switching off what makes a model random in training, for losses that compare it with a fixed reference.

DPO computes the reference once, without dropout. TRL's `disable_dropout` zeroes modules of class `nn.Dropout` only, and
many models drop by a function whose probability is an attribute (Llama's `attention_dropout`, OPT's `dropout`), or
add noise to what routes tokens to experts (Mixtral's `jitter_noise`).

Imports torch at its top, so import it only where a training starts.
"""

import logging
from typing import Any

import torch

NOISE = ("jitter_noise", "moe_jitter_eps")  # only applied in training mode, by transformers 5.23
log = logging.getLogger(__name__)


def disable_dropout(model: Any) -> None:
    """Sets the probabilities of functional dropout and router noise to 0, in `model` but not in its config.

    Warns once where the model is random in training all the same.
    """
    disabled = set()
    for module in model.modules():
        for name, value in vars(module).items():
            drops = "dropout" in name or "pdrop" in name or name in NOISE
            if drops and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                setattr(module, name, 0.0)
                disabled.add(f"{name} {value:g}")
    if disabled:
        log.info("set to 0 for DPO, whose reference is computed without it: %s", ", ".join(sorted(disabled)))
    if _is_first_process() and is_random_in_training(model):
        log.warning(
            "%s is random in training mode, beyond any dropout that can be switched off here (PhiMoE's sampled routes "
            "are such a case); the reference of DPO is computed without that, so that rewards and losses are noisy",
            type(model).__name__,
        )


@torch.no_grad()
def is_random_in_training(model: Any) -> bool:
    """Whether two passes of one text in training mode differ; leaves mode and random state as they are."""
    embedding = model.get_input_embeddings()
    ids = torch.arange(8, device=embedding.weight.device)[None] % embedding.num_embeddings
    # TRL zeroes these later, and only these
    modules = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    rates = [module.p for module in modules]
    was_training = model.training
    try:
        for module in modules:
            module.p = 0.0
        model.train()
        passes = []
        for seed in (0, 1):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                passes.append(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    finally:
        model.train(was_training)
        for module, rate in zip(modules, rates, strict=True):
            module.p = rate
    return not torch.equal(*passes)


def _is_first_process() -> bool:
    """Under FSDP, only the first process holds the weights at this time."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
