"""What goes on beside the updates: figures, marks on whole checkpoints, and a polite end when SIGTERM asks for one.

SLURM, Kubernetes and spot machines send SIGTERM some time before they kill. The update under way is then finished, a
checkpoint written, and the signal handed on to whoever handled it before; a second one is not waited for.

Imports torch and transformers at its top, so import it only where a training starts.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from longreward.training.checkpoints import mark_complete
from longreward.training.report import Log
from longreward.utils.progress import ProgressUpdate

log = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Whether this process was asked to end."""

    to_end: bool = False


@contextmanager
def handle_sigterm() -> Iterator[StopRequest]:
    """Takes note of a first SIGTERM; a thread that is not the main one leaves signals as they are."""
    asked = StopRequest()
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield asked
        return

    def note(number: int, frame: object) -> None:
        asked.to_end = True
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Passes figures on as they come, marks checkpoints that were written to their end, and ends when asked to."""

    def __init__(self, trainer: Any, log: Log | None, *, asked: StopRequest, checkpoint: Path | None) -> None:
        self.trainer, self.log, self.asked, self.checkpoint = trainer, log, asked, checkpoint
        self.last: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The curve of the part before, as the checkpoint has it."""
        if self.checkpoint is None:
            return
        self.trainer.take_up_figures(self.checkpoint)
        for logged in state.log_history:
            self._pass_on(int(logged["step"]), {k: v for k, v in logged.items() if k != "step"})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        self._pass_on(state.global_step, logs or {})

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self._any_asked(args):
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.trainer.keep_figures(checkpoint)
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(checkpoint)
        if self.asked.to_end:
            log.warning("SIGTERM: %s is written, and the same training goes on from there", checkpoint)

    def _pass_on(self, step: int, logs: dict[str, Any]) -> None:
        figures = {k: float(v) for k, v in logs.items() if isinstance(v, int | float)}
        if "loss" not in figures:  # the trainer's own summary at its end
            return
        self.last = figures
        if self.log is not None:
            self.log(step, figures)

    def _any_asked(self, args: Any) -> bool:
        """Whether one of the processes was asked: they must stop at the same update."""
        if args.world_size > 1:
            flag = torch.tensor(float(self.asked.to_end), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.asked.to_end = bool(flag)
        return self.asked.to_end


class StepProgress(TrainerCallback):  # type: ignore[misc]
    """Reports the optimizer steps done so far and their total."""

    def __init__(self, update: ProgressUpdate) -> None:
        self.update = update

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed training begins with the steps of its checkpoint."""
        self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.update(state.global_step, state.max_steps)
