"""Switch off dropout and other randomness of a model in training mode, for DPO.

DPO compares the model with a reference that is computed once, without dropout. TRL's `disable_dropout` only zeroes
modules of class `nn.Dropout`. Many models call the function with a probability that is an attribute (Llama's
`attention_dropout`, OPT's `dropout`), or add noise to their expert router (Mixtral's `jitter_noise`).

Imports torch at the top, so import it only where a training starts.
"""

import logging
from typing import Any

import torch

from longreward.training.distributed import is_main_process

ROUTER_NOISE = ("jitter_noise", "moe_jitter_eps")  # applied in training mode only, by transformers 5.23
log = logging.getLogger(__name__)


def disable_dropout(model: Any) -> None:
    """Set the probabilities of functional dropout and router noise to 0 in `model`, but not in its config.

    Logs a warning where the model stays random in training mode.
    """
    disabled = set()
    for module in model.modules():
        for name, value in vars(module).items():
            is_noise = "dropout" in name or "pdrop" in name or name in ROUTER_NOISE
            if is_noise and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                setattr(module, name, 0.0)
                disabled.add(f"{name} {value:g}")
    if disabled:
        log.info("set to 0 for DPO, whose reference is computed without it: %s", ", ".join(sorted(disabled)))
    # Under FSDP only the main process holds the weights at this time.
    if is_main_process() and is_random_in_training(model):
        log.warning(
            "%s is random in training mode, beyond any dropout that can be switched off here (PhiMoE's sampled routes "
            "are such a case); the reference of DPO is computed without that, so that rewards and losses are noisy",
            type(model).__name__,
        )


@torch.no_grad()
def is_random_in_training(model: Any) -> bool:
    """Whether two passes of the same text differ in training mode; restores the mode and the random state."""
    embedding = model.get_input_embeddings()
    ids = torch.arange(8, device=embedding.weight.device)[None] % embedding.num_embeddings
    # TRL zeroes these modules later, so they are left out of the comparison.
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
