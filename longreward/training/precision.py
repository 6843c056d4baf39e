"""Decide whether a training computes in bfloat16 (autocast) where `bf16: auto` leaves it to the device.

    CUDA                        where the GPU has bfloat16
    CPU                         where a measurement of the model shows a clear gain; without AVX512-BF16 or AMX,
                                bfloat16 is emulated and takes 2.5 to 20 times as long as float32
    several processes on CPUs   float32, so that the processes cannot measure differently

The choice is saved beside the checkpoints: a training that resumes elsewhere, or on a busier machine, keeps it.
"""

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longreward.errors import StateError
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy
from longreward.training.distributed import is_main_process, process_count
from longreward.utils.jsonl import open_atomic

if TYPE_CHECKING:
    import torch

Bf16 = bool | Literal["auto"]
FILE_NAME = "precision.json"
# float32 is more precise, and near break-even the choice would differ from run to run. In a training whose packed rows
# have many lengths, oneDNN compiles and keeps kernels for each: with 1.2 measured, the default SFT took 35 s and 2.4 GB
# in bfloat16, 28 s and 0.8 GB in float32.
MIN_SPEEDUP = 1.5
REPEATS = 3
BUDGET_S = 0.5  # CPU time of a float32 forward pass; longer texts are cut to it
ROWS_BUDGET_S = 0.1  # the same for several rows, which hardly change the ratio
HOPELESS_SLOWDOWN = 3.0  # above, the backward pass is not measured

log = logging.getLogger(__name__)


def resolve_without_model(setting: Bf16, policy: PolicyConfig) -> bool:
    """Resolve `setting` before a model is loaded: auto is true on a GPU with bfloat16."""
    if setting != "auto":
        return setting
    import torch

    if policy.device == "cpu" or not torch.cuda.is_available():
        return False
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def resolve_bf16(setting: Bf16, policy: Policy, *, state: Path, rows: int, tokens: int, full: bool = True) -> bool:
    """Resolve `setting` for a training whose micro batch has up to `rows` rows of `tokens` tokens.

    `full`: all weights are trained, not adapters alone. The choice of auto is logged, and saved in `state`. StateError
    where the training was started in bfloat16 and the GPU at hand does not have it.
    """
    if setting != "auto":
        return setting
    on_gpu = policy.device.type == "cuda"
    supported = resolve_without_model(setting, policy.config)
    file = state / FILE_NAME
    if file.is_file():
        saved = bool(json.loads(file.read_text(encoding="utf-8"))["bf16"])
        if saved and on_gpu and not supported:
            raise StateError(
                f"{state}: this training was started in bfloat16, which this GPU does not have; resume it where it was "
                "started, or delete the folder to start from the beginning"
            )
        log.info("bf16: auto is %s, as this training was started", str(saved).lower())
        return saved
    if on_gpu:
        choice, reason = supported, f"the GPU {'has' if supported else 'does not have'} bfloat16"
    elif process_count() > 1:
        choice, reason = False, "several processes on CPUs"
    else:
        speedup = bfloat16_speedup(policy.model, rows=rows, tokens=tokens, full=full)
        relative = f"{speedup:.1f} times as fast" if speedup >= 1 else f"{1 / speedup:.1f} times as slow"
        choice = speedup >= MIN_SPEEDUP
        reason = f"on this CPU the model is {relative} in bfloat16 as in float32"
    if is_main_process():
        log.info("bf16: auto is %s: %s", str(choice).lower(), reason)
        with open_atomic(file) as text:
            json.dump({"bf16": choice}, text)
    return choice


def bfloat16_speedup(model: Any, *, rows: int, tokens: int, full: bool = True) -> float:
    """Measure how many times as fast `model` runs forward and backward in bfloat16 as in float32 on this CPU.

    The batch is `rows` x `tokens`, or less where that takes long. Leaves no gradient and does not change the random
    state.
    """
    import torch

    # CPU seconds of one thread: on a busy machine threads spin while they wait for each other, and the same
    # measurement with two threads gave speedups from 0.6 to 2.9.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Reduce the batch until a forward pass is within the budgets: rows first, then tokens.
        probe = min(tokens, 32)
        _forward_seconds(model, _make_ids(model, 1, probe), bf16=False)  # warm-up
        per_token = max(_forward_seconds(model, _make_ids(model, 1, probe), bf16=False), 1e-6) / probe
        affordable = max(probe, int(BUDGET_S / per_token))
        rows = max(1, min(rows, int(ROWS_BUDGET_S / per_token) // tokens))
        ids = _make_ids(model, rows, min(tokens, affordable))

        float32_s = _forward_seconds(model, ids, bf16=False)
        if _forward_seconds(model, ids, bf16=True) > HOPELESS_SLOWDOWN * float32_s:
            # The first pass in bfloat16 may be slow only because it is the first.
            bf16_s = _forward_seconds(model, ids, bf16=True)
            if bf16_s > HOPELESS_SLOWDOWN * float32_s:
                return float32_s / bf16_s
        # Frozen weights get no gradients, which would double a large model's memory. Those of the norms (one
        # dimension) are enough to require the full backward pass.
        trained = [weight for weight in model.parameters() if weight.requires_grad and (full or weight.dim() == 1)]
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(REPEATS + 1):  # alternating, so that a busy moment affects both; the first of each is a warm-up
            for bf16, measured in seconds.items():
                measured.append(_step_seconds(model, ids, trained, bf16=bf16))
        return min(seconds[False][1:]) / min(seconds[True][1:])
    finally:
        torch.set_num_threads(threads)


def _make_ids(model: Any, rows: int, tokens: int) -> "torch.Tensor":
    import torch

    vocabulary = int(model.get_input_embeddings().num_embeddings)
    return (torch.arange(rows * tokens) % vocabulary).view(rows, tokens)


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
