"""Whether a training computes in bfloat16 (autocast), where `bf16: auto` leaves it to the device.

    CUDA      where the GPU has bfloat16
    CPU       where a measurement on the model itself shows a clear gain; without AVX512-BF16 or AMX, bfloat16 is
              emulated and takes 2.5 to 20 times as long as float32
    several processes on CPUs     float32, so that none of them measures differently

The choice is kept beside the checkpoints. A training that goes on elsewhere, or on a busier machine, goes on with it.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longreward.errors import StateError
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy

if TYPE_CHECKING:
    import torch

Bf16 = bool | Literal["auto"]
NAME = "precision.json"
LEAST_GAIN = 1.2
"""float32 is more precise, and a choice near the break-even point would differ from run to run."""
REPEATS = 3
BUDGET_S = 0.5  # of CPU time, for a forward pass in float32
HOPELESS = 3.0  # a first pass, with all that is slow about it, was never seen to take three times a second one

log = logging.getLogger(__name__)


def resolve_without_model(wanted: Bf16, policy: PolicyConfig) -> bool:
    """What `wanted` means as far as it can be told without weights: auto is true on a GPU with bfloat16."""
    if wanted != "auto":
        return wanted
    import torch

    if policy.device == "cpu" or not torch.cuda.is_available():
        return False
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def saved_choice(state: Path) -> bool | None:
    """What the training of this state folder chose before; None where it has not begun."""
    path = state / NAME
    return bool(json.loads(path.read_text(encoding="utf-8"))["bf16"]) if path.is_file() else None


def resolve_bf16(wanted: Bf16, policy: Policy, *, state: Path, rows: int, tokens: int, whole: bool = True) -> bool:
    """What `wanted` means for this training, whose micro batch has up to `rows` rows of `tokens` tokens.

    `whole`: all weights are trained, not adapters alone. Logs the choice of auto, and keeps it in `state`. StateError
    where the training was begun in bfloat16 and the GPU at hand has none.
    """
    if wanted != "auto":
        return wanted
    on_gpu = policy.device.type == "cuda"
    supported = resolve_without_model(wanted, policy.config)
    choice = saved_choice(state)
    if choice is not None:
        if choice and on_gpu and not supported:
            raise StateError(
                f"{state}: this training was begun in bfloat16, which this GPU does not have; go on where it was "
                "begun, or delete the folder to start anew"
            )
        log.info("bf16: auto is %s, as this training was begun", str(choice).lower())
        return choice
    if on_gpu:
        choice, reason = supported, f"the GPU {'has' if supported else 'does not have'} bfloat16"
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        choice, reason = False, "several processes on CPUs"
    else:
        gain = bfloat16_gain(policy.model, rows=rows, tokens=tokens, whole=whole)
        choice, reason = gain >= LEAST_GAIN, _reason(gain)
    if os.environ.get("RANK", "0") == "0":
        log.info("bf16: auto is %s: %s", str(choice).lower(), reason)
        state.mkdir(parents=True, exist_ok=True)
        part = state / f"{NAME}.part"
        part.write_text(json.dumps({"bf16": choice}), encoding="utf-8")
        part.replace(state / NAME)
    return choice


def bfloat16_gain(model: Any, *, rows: int, tokens: int, whole: bool = True) -> float:
    """How many times as fast `model` passes text forward and backward in bfloat16 as in float32, on this CPU.

    In CPU seconds of one thread: on a busy machine, threads that wait for each other spin, and the same measurement
    with two threads gave gains from 0.6 to 2.9. The batch is at most `rows` x `tokens`, and less where that takes long.
    No gradient is left in the model, and no random state is touched.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _gain(model, rows, tokens, whole=whole)
    finally:
        torch.set_num_threads(threads)


def _gain(model: Any, rows: int, tokens: int, *, whole: bool) -> float:
    rows, tokens = _affordable(model, rows, tokens)
    ids = _ids(model, rows, tokens)
    single = _forward_seconds(model, ids, bf16=False)
    first = _forward_seconds(model, ids, bf16=True)
    if first > HOPELESS * single:
        # The first bfloat16 pass may only be slow because it is the first: look once more at the same place.
        again = _forward_seconds(model, ids, bf16=True)
        if again > HOPELESS * single:
            return single / again
    # Frozen weights get no gradients, which would double a large model's memory; those of norms need the whole pass.
    trained = [weight for weight in model.parameters() if weight.requires_grad and (whole or weight.dim() == 1)]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(REPEATS + 1):  # in turns, so that a busy moment meets both; the first of each warms up
        for bf16, spent in seconds.items():
            spent.append(_step_seconds(model, ids, trained, bf16=bf16))
    return min(seconds[False][1:]) / min(seconds[True][1:])


def _affordable(model: Any, rows: int, tokens: int) -> tuple[int, int]:
    """As many of the rows and tokens as a forward pass within BUDGET_S allows, tokens first."""
    few = min(tokens, 32)
    ids = _ids(model, 1, few)
    _forward_seconds(model, ids, bf16=False)
    per_token = max(_forward_seconds(model, ids, bf16=False), 1e-6) / few
    most = max(few, int(BUDGET_S / per_token))
    return max(1, min(rows, most // tokens)), min(tokens, most)


def _ids(model: Any, rows: int, tokens: int) -> "torch.Tensor":
    import torch

    words = int(model.get_input_embeddings().num_embeddings)
    return (torch.arange(rows * tokens) % words).view(rows, tokens)


def _forward_seconds(model: Any, ids: "torch.Tensor", *, bf16: bool) -> float:
    import torch

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        started = time.thread_time()
        model(input_ids=ids, use_cache=False)
    return time.thread_time() - started


def _step_seconds(model: Any, ids: "torch.Tensor", trained: "list[torch.Tensor]", *, bf16: bool) -> float:
    import torch

    started = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(input_ids=ids, use_cache=False).logits
    torch.autograd.grad(logits.float().mean(), trained, allow_unused=True)
    return time.thread_time() - started


def _reason(gain: float) -> str:
    times = f"{gain:.1f} times as fast" if gain >= 1 else f"{1 / gain:.1f} times as slow"
    return f"on this CPU the model is {times} in bfloat16 as in float32"
