"""Callbacks of a training: pass metrics on, mark complete checkpoints, show progress, stop on SIGTERM.

SLURM, Kubernetes and spot machines send SIGTERM some time before they kill. The current update is then finished, a
checkpoint written, and the signal passed to the previous handler. A second SIGTERM takes effect at once.

Imports torch and transformers at the top, so import it only where a training starts.
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
    """Whether this process was asked to stop."""

    requested: bool = False


@contextmanager
def handle_sigterm() -> Iterator[StopRequest]:
    """Record a first SIGTERM instead of ending the process; outside the main thread, signals stay as they are."""
    stop = StopRequest()
    previous = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or previous is None:
        yield stop
        return

    def record(number: int, frame: object) -> None:
        stop.requested = True
        signal.signal(signal.SIGTERM, previous)

    signal.signal(signal.SIGTERM, record)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Passes metrics to `log` as they come, marks complete checkpoints, and stops the training when requested."""

    def __init__(self, trainer: Any, log: Log | None, *, stop: StopRequest, checkpoint: Path | None) -> None:
        self.trainer, self.log, self.stop, self.checkpoint = trainer, log, stop, checkpoint
        self.last: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the metrics of the steps before the checkpoint again, for a complete curve."""
        if self.checkpoint is None:
            return
        self.trainer.restore_pending_metrics(self.checkpoint)
        for entry in state.log_history:
            self._forward(int(entry["step"]), {k: v for k, v in entry.items() if k != "step"})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._forward(state.global_step, logs or {})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:  # all processes must stop at the same update
            flag = torch.tensor(float(self.stop.requested), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.stop.requested = bool(flag)
        if self.stop.requested:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.trainer.save_pending_metrics(checkpoint)
        # The mark records file sizes, so all processes must have written their files before.
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(checkpoint)
        if self.stop.requested:
            log.warning("SIGTERM: %s is written, and the same training resumes from there", checkpoint)

    def _forward(self, step: int, logs: dict[str, Any]) -> None:
        metrics = {k: float(v) for k, v in logs.items() if isinstance(v, int | float)}
        if "loss" not in metrics:  # the summary that the trainer logs at its end
            return
        self.last = metrics
        if self.log is not None:
            self.log(step, metrics)


class StepProgress(TrainerCallback):  # type: ignore[misc]
    """Reports the number of finished steps and their total."""

    def __init__(self, update: ProgressUpdate) -> None:
        self.update = update

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the steps of the checkpoint that the training resumes from."""
        self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.update(state.global_step, state.max_steps)
