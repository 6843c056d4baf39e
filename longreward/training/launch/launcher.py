"""The file by which `accelerate launch` starts a training's processes, and how many they are; nothing is imported here.

fsdp2, ddp          files of configs/accelerate/, which come with the project
my/cluster.yaml     any file that `accelerate config` wrote, for one machine
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import psutil

from longreward.config import CONFIGS
from longreward.errors import ConfigError, WorkerProcessDied
from longreward.models.config import PolicyConfig
from longreward.training.config import TrainingSettings
from longreward.training.launch.job import Job, MetricsReader, read_error, read_report
from longreward.training.precision import resolve_without_model
from longreward.training.report import Log, TrainingReport

DEFAULT = "fsdp2"
NO_CPU = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed"}  # accelerate 1.15 passes over them without a word on a CPU


@dataclass(frozen=True)
class LauncherFile:
    """A launcher's file and what was read from it."""

    path: Path
    kind: str
    """FSDP, MULTI_GPU (DDP), DEEPSPEED, …: accelerate's distributed_type."""
    processes: int | None
    """None where the file leaves it open."""


def launcher_file(settings: TrainingSettings) -> LauncherFile:
    """The file that `launcher_config` means; ConfigError where there is none, or where it is not for one machine."""
    name = settings.launcher_config or DEFAULT
    path = Path(name)
    if not path.is_file():
        path = builtin_launcher_files().get(name, path)
    values = _read(path, name)
    if int(values.get("num_machines") or 1) > 1:
        raise ConfigError(f"launcher_config: {path} is for {values['num_machines']} machines; num_machines must be 1")
    if values.get("parallelism_config"):
        raise ConfigError(
            f"launcher_config: {path} has a parallelism_config; context and tensor parallelism are not possible here, "
            "see docs/multi-gpu.md: take it out"
        )
    count = int(values.get("num_processes") or -1)
    return LauncherFile(path, str(values["distributed_type"]), count if count > 0 else None)


def builtin_launcher_files() -> dict[str, Path]:
    """The files that come with the project, by name."""
    return {file.stem: file for file in sorted((CONFIGS / "accelerate").glob("*.yaml"))}


def check_launcher(settings: TrainingSettings, policy: PolicyConfig) -> None:
    """ConfigError where several processes could not even start; without a launcher nothing is looked at."""
    if settings.launcher == "none":
        return
    found = launcher_file(settings)
    if policy.device_map is not None:
        raise ConfigError(
            f"policy.device_map ({policy.device_map}) puts one model over several GPUs within one process, and "
            "launcher: accelerate gives each process a GPU of its own: set one of them to null / none"
        )
    if found.kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise ConfigError(
            f"launcher_config: {found.path} asks for DeepSpeed, which is not installed: `pip install deepspeed` (it "
            "compiles for the GPU at hand), or set it to fsdp2"
        )
    if policy.device == "cpu" and found.kind in NO_CPU:
        raise ConfigError(
            f"launcher_config: {found.path} asks for {NO_CPU[found.kind]}, which accelerate offers on GPUs alone; on "
            "CPUs (policy.device: cpu) set it to ddp"
        )


def _read(path: Path, name: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"launcher_config: {name} cannot be read ({error}); name one of {', '.join(builtin_launcher_files())}, "
            "or the path of a file that `accelerate config` wrote"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("distributed_type"), str):
        raise ConfigError(f"launcher_config: {path} has no distributed_type; write it with `accelerate config`")
    return values


# A command in a process group of its own that is gone at the end, however that comes, with all that it started.


END_LIMIT_S = 10.0  # between the polite signal and the last one; whoever ends this process waits for 15 s
KEPT_LINES = 200


@dataclass
class ProcessGroup:
    """A command that runs; `words` are the last lines that it and its processes said."""

    leader: subprocess.Popen[str]
    words: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    ending: bool = False

    def pass_on(self) -> None:
        """Shows what it says until it is ended: what it says of that is no news."""
        assert self.leader.stdout is not None
        for line in self.leader.stdout:
            self.words.append(line)
            if not self.ending:
                sys.stderr.write(line)

    def end(self) -> None:
        """Asks the leader, who asks its processes, some of which are in sessions of their own; kills what is left."""
        self.ending = True
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            leader = psutil.Process(self.leader.pid)
            all_of_them = [leader, *leader.children(recursive=True)]
            os.killpg(self.leader.pid, signal.SIGTERM)
            for one in psutil.wait_procs(all_of_them, timeout=END_LIMIT_S)[1]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.leader.wait()


@contextmanager
def run_process_group(command: Sequence[str]) -> Iterator[ProcessGroup]:
    """Runs `command` while the body looks on; where the body is left before its end, it is ended."""
    with _terminated_as_an_error():
        leader = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        group = ProcessGroup(leader)
        pump = threading.Thread(target=group.pass_on, daemon=True)
        pump.start()
        try:
            yield group
        finally:
            if leader.poll() is None:
                group.end()
            pump.join(1.0)


@contextmanager
def _terminated_as_an_error() -> Iterator[None]:
    """Makes a SIGTERM that nobody handles an exception, so that it passes through what ends the processes."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# A training on several processes: this one starts them, hears of them, and ends them.
#
#     train_dpo ── launch ── accelerate launch ─┬─ process.py  ── train_dpo    the first: figures, checkpoints, the m…
#                                               └─ process.py  ── train_dpo    the others: their share of each update
#
# A process that dies ends all, and so does the end of this one; the same call goes on from the last checkpoint.


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
        return _follow(launch_command(file.path, count, folder, bf16=bf16), folder, log)


def launch_command(file: Path, count: int, folder: Path, *, bf16: bool) -> list[str]:
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
    reader = MetricsReader(folder, log)
    with run_process_group(command) as group:
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
