"""The trained model, whole, as any server loads it: put together from the parts of all processes, written by one."""

import shutil
from pathlib import Path
from typing import Any

from longreward.models.policy import Policy, load_policy
from longreward.training.checkpoints import publish


def save_whole(trainer: Any, policy: Policy, out: Path) -> None:
    """Writes model and tokenizer to `out`; all processes call it together, and the first one writes.

    Weights are in the type in which they were trained; an adapter is merged, and kept in `out`/adapter. StateError
    where the disk refuses.
    """
    process = trainer.accelerator
    in_parts = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    weights = process.get_state_dict(trainer.model_wrapped) if in_parts else None
    if process.is_main_process:
        publish(out, lambda folder: _write(process.unwrap_model(trainer.model), weights, policy, folder))
    process.wait_for_everyone()


def clear(trainer: Any, state: Path) -> None:
    """Removes the state of a training that is done; where that is cut short, no half of it is found again."""
    if trainer.accelerator.is_main_process and state.is_dir():
        done = state.with_name(f".{state.name}.done")
        shutil.rmtree(done, ignore_errors=True)
        state.replace(done)
        shutil.rmtree(done, ignore_errors=True)


def _write(model: Any, weights: dict[str, Any] | None, policy: Policy, folder: Path) -> None:
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter", state_dict=weights)
        model = model.merge_and_unload() if weights is None else _merged_anew(policy, folder / "adapter")
        weights = None
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=weights)
    policy.tokenizer.save_pretrained(folder)


def _merged_anew(policy: Policy, adapter: Path) -> Any:
    """What lies in parts on many GPUs cannot be merged there, so the bare model is read again, on the CPU."""
    from peft import PeftModel

    bare = load_policy(policy.config.model_copy(update={"device": "cpu"}), policy.name)
    return PeftModel.from_pretrained(bare.model, adapter).merge_and_unload()
