"""A training on several processes: this one starts them, hears of them, and ends them.

    train_dpo ── launch ── accelerate launch ─┬─ process.py  ── train_dpo    the first: figures, checkpoints, the model
                                              └─ process.py  ── train_dpo    the others: their share of each update

A process that dies ends all, and so does the end of this one; the same call goes on from the last checkpoint.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from longreward.errors import ConfigError, WorkerProcessDied
from longreward.models.config import PolicyConfig
from longreward.training.config import TrainingSettings
from longreward.training.launch.config import check_launcher, launcher_file
from longreward.training.launch.job import FigureReader, Job, read_error, read_report
from longreward.training.launch.process_group import started
from longreward.training.precision import resolve_without_model
from longreward.training.report import Log, TrainingReport

LOOK_EVERY_S = 0.2


def launch(
    stage: Literal["sft", "train"],
    settings: TrainingSettings,
    policy: PolicyConfig,
    *,
    model: str,
    data: Path,
    out: Path,
    state: Path,
    log: Log | None = None,
) -> TrainingReport:
    """Trains as `settings.launcher` says. An error of ours in any process is raised here as it was there.

    ConfigError before anything is started; ProcessesEnded where a process was killed or broke down.
    """
    check_launcher(settings, policy)
    file = launcher_file(settings)
    count = settings.processes or file.processes or _gpus(policy)
    # Resolved here, since accelerate needs it and all processes must agree; so it is part of the training's key, and
    # on other hardware a training of `bf16: auto` starts anew.
    bf16 = resolve_without_model(settings.bf16, policy)
    known = {**settings.model_dump(mode="json"), "processes": count, "bf16": bf16}
    type(settings).parse(known, source=f"{stage}: on {count} processes")
    with TemporaryDirectory(prefix="longreward-") as name:
        folder = Path(name)
        job = Job(
            stage=stage,
            settings=known,
            policy=policy,
            model=model,
            data=data,
            out=out,
            state=state,
            starter=os.getpid(),
        )
        job.write(folder)
        return _follow(command(file.path, count, folder, bf16=bf16), folder, log)


def command(file: Path, count: int, folder: Path, *, bf16: bool) -> list[str]:
    """`accelerate launch` on a port that is free; the settings' precision goes before the file's."""
    options = ["--config_file", str(file), "--num_processes", str(count), "--main_process_port", "0"]
    precision = ["--mixed_precision", "bf16" if bf16 else "no"]
    run = ["-m", "longreward.training.launch.worker", str(folder)]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *precision, *run]


def _gpus(policy: PolicyConfig) -> int:
    import torch

    count = 0 if policy.device == "cpu" else torch.cuda.device_count()
    if count == 0:
        raise ConfigError("processes: there is no GPU here to count; say how many processes share the training")
    return count


def _follow(command: Sequence[str], folder: Path, log: Log | None) -> TrainingReport:
    reader = FigureReader(folder, log)
    with started(command) as group:
        while group.leader.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                group.leader.wait(LOOK_EVERY_S)
            reader.look()
    reader.look()
    code, report = group.leader.returncode, read_report(folder)
    if code == 0 and report is not None:
        return report
    raise read_error(folder) or WorkerProcessDied(_why(code, group.words))


def _why(code: int, words: Sequence[str]) -> str:
    """From torchrun's own summary of who ended first."""
    text = "".join(words)
    first = text.rpartition("Root Cause")[2]
    rank, ended = re.search(r"rank\s*:\s*(\d+)", first), re.search(r"exitcode\s*:\s*(-?\d+)", first)
    if rank is None or ended is None:
        last = next((line.strip() for line in reversed(words) if line.strip()), "nothing")
        return f"the training's processes ended with code {code}; the last that they said is: {last}"
    again = "what they said is above; the same call goes on from the last checkpoint"
    if (number := -int(ended[1])) > 0:
        how = f"was ended by {signal.Signals(number).name}"
        hint = ", as a machine does whose memory is full" if number == signal.SIGKILL else ""
        return f"process {rank[1]} of the training {how}{hint}, and the others with it; {again}"
    error = next((line for line in words if ERROR.match(line)), None)
    said = f" with {ERROR.sub('', error).strip()}" if error else ""
    return f"process {rank[1]} of the training broke down{said}, and the others were ended; {again}"


ERROR = re.compile(r"^(?:\[rank\d+\]: )?(?=[\w.]+(?:Error|Exception): )")
