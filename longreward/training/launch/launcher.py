"""Start a training on several processes with `accelerate launch`, follow it, and end all of them with this process.

    train_dpo ── launch ── accelerate launch ─┬─ worker.py  ── train_dpo    the first: metrics, checkpoints, the model
                                              └─ worker.py  ── train_dpo    the others: their share of each update

A process that dies ends all others, and so does the end of this one; the same call resumes from the last checkpoint.
The launcher's file is one of configs/accelerate/ (fsdp2, ddp), or any that `accelerate config` wrote for one machine.
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
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import psutil
import yaml

from longreward.config import CONFIGS
from longreward.errors import ConfigError, WorkerProcessDied
from longreward.models.config import PolicyConfig
from longreward.training.config import TrainingSettings
from longreward.training.launch.job import Job, MetricsReader, ProgressReader, read_error, read_report
from longreward.training.precision import resolve_without_model
from longreward.training.report import Log, TrainingReport

DEFAULT_FILE = "fsdp2"
GPU_ONLY = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed"}  # accelerate 1.15 silently ignores them on a CPU
POLL_INTERVAL_S = 0.2
TERMINATION_TIMEOUT_S = 10.0  # from SIGTERM to SIGKILL; the pipeline kills this process 15 s after its SIGTERM
OUTPUT_LINES = 200  # kept to explain a failure


@dataclass(frozen=True)
class LauncherFile:
    """A launcher's file and what matters of its content."""

    path: Path
    kind: str
    """accelerate's distributed_type: FSDP, MULTI_GPU (DDP), DEEPSPEED, …"""
    processes: int | None
    """None where the file leaves it open."""


def builtin_launcher_files() -> dict[str, Path]:
    """Return the files that come with the project, by name."""
    return {file.stem: file for file in sorted((CONFIGS / "accelerate").glob("*.yaml"))}


def launcher_file(settings: TrainingSettings) -> LauncherFile:
    """Read the file that `launcher_config` names; ConfigError where it is missing or not for one machine."""
    name = settings.launcher_config or DEFAULT_FILE
    path = Path(name)
    if not path.is_file():
        path = builtin_launcher_files().get(name, path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"launcher_config: {name} cannot be read ({error}); name one of {', '.join(builtin_launcher_files())}, or "
            "the path of a file that `accelerate config` wrote"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("distributed_type"), str):
        raise ConfigError(f"launcher_config: {path} has no distributed_type; write it with `accelerate config`")
    if int(values.get("num_machines") or 1) > 1:
        raise ConfigError(f"launcher_config: {path} is for {values['num_machines']} machines; num_machines must be 1")
    if values.get("parallelism_config"):
        raise ConfigError(
            f"launcher_config: {path} has a parallelism_config; context and tensor parallelism are not possible here, "
            "see docs/multi-gpu.md: take it out"
        )
    processes = int(values.get("num_processes") or -1)
    return LauncherFile(path, str(values["distributed_type"]), processes if processes > 0 else None)


def check_launcher(settings: TrainingSettings, policy: PolicyConfig) -> None:
    """ConfigError where the processes could not even start; does nothing without a launcher."""
    if settings.launcher == "none":
        return
    file = launcher_file(settings)
    if policy.device_map is not None:
        raise ConfigError(
            f"policy.device_map ({policy.device_map}) puts one model over several GPUs within one process, and "
            "launcher: accelerate gives each process a GPU of its own: set one of them to null / none"
        )
    if file.kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise ConfigError(
            f"launcher_config: {file.path} uses DeepSpeed, which is not installed: `pip install deepspeed` (it "
            "compiles for the GPU at hand), or set it to fsdp2"
        )
    if policy.device == "cpu" and file.kind in GPU_ONLY:
        raise ConfigError(
            f"launcher_config: {file.path} uses {GPU_ONLY[file.kind]}, which accelerate supports on GPUs only; on CPUs "
            "(policy.device: cpu) set it to ddp"
        )


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
    """Train as `settings.launcher` says; an error of ours in any process is raised here as it was there.

    ConfigError before anything is started; WorkerProcessDied where a process was killed or failed otherwise.
    """
    check_launcher(settings, policy)
    file = launcher_file(settings)
    processes = settings.processes or file.processes
    if processes is None:
        import torch

        processes = 0 if policy.device == "cpu" else torch.cuda.device_count()
        if processes == 0:
            raise ConfigError("processes: there is no GPU here to count; set how many processes share the training")
    # Resolved here, since accelerate needs it and all processes must agree. So it is part of the training's key, and on
    # other hardware a training of `bf16: auto` starts from the beginning.
    bf16 = resolve_without_model(settings.bf16, policy)
    values = {**settings.model_dump(mode="json"), "processes": processes, "bf16": bf16}
    type(settings).parse(values, source=f"{stage}: on {processes} processes")
    with TemporaryDirectory(prefix="longreward-") as name:
        folder = Path(name)
        job = Job(
            stage=stage,
            settings=values,
            policy=policy,
            model=model,
            data=data,
            out=out,
            state=state,
            launcher_pid=os.getpid(),
        )
        (folder / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
        return _run_job(launch_command(file.path, processes, folder, bf16=bf16), folder, log)


def launch_command(file: Path, processes: int, folder: Path, *, bf16: bool) -> list[str]:
    """Return the `accelerate launch` command; the settings' precision overrides the file's."""
    options = ["--config_file", str(file), "--num_processes", str(processes)]
    options += ["--main_process_port", "0"]  # any free port
    options += ["--mixed_precision", "bf16" if bf16 else "no"]
    worker = ["-m", "longreward.training.launch.worker", str(folder)]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *worker]


def _run_job(command: Sequence[str], folder: Path, log: Log | None) -> TrainingReport:
    """Run the processes and pass on their output, metrics and progress; none of them outlives this call."""
    metrics, progress = MetricsReader(folder, log), ProgressReader(folder)
    output: deque[str] = deque(maxlen=OUTPUT_LINES)
    terminating = threading.Event()

    def forward_output() -> None:
        assert leader.stdout is not None
        for line in leader.stdout:
            output.append(line)
            if not terminating.is_set():  # then the processes only complain that they are ended
                sys.stderr.write(line)

    with _sigterm_as_exit():
        leader = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",  # a process may be killed in the middle of a character
            start_new_session=True,  # Ctrl-C reaches this process only, which then terminates the group in order
        )
        forwarder = threading.Thread(target=forward_output, daemon=True)
        forwarder.start()
        try:
            while leader.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    leader.wait(POLL_INTERVAL_S)
                metrics.poll()
                progress.poll()
        finally:
            if leader.poll() is None:
                terminating.set()
                _terminate(leader)
            forwarder.join(1.0)
    metrics.poll()
    progress.poll()
    report = read_report(folder)
    if leader.returncode == 0 and report is not None:
        return report
    raise read_error(folder) or WorkerProcessDied(describe_failure(leader.returncode, output))


def _terminate(leader: subprocess.Popen[str]) -> None:
    """Terminate the leader, which terminates its processes; kill those that remain, also of other sessions."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        processes = [psutil.Process(leader.pid), *psutil.Process(leader.pid).children(recursive=True)]
        os.killpg(leader.pid, signal.SIGTERM)
        for process in psutil.wait_procs(processes, timeout=TERMINATION_TIMEOUT_S)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    leader.wait()


# torchrun prefixes the lines of a traceback with the rank.
ERROR_LINE = re.compile(r"^(?:\[rank\d+\]: )?(?=[\w.]+(?:Error|Exception): )")


def describe_failure(code: int, output: Sequence[str]) -> str:
    """Describe what ended the processes, from torchrun's summary of the one that ended first."""
    root_cause = "".join(output).rpartition("Root Cause")[2]
    rank, exit_code = re.search(r"rank\s*:\s*(\d+)", root_cause), re.search(r"exitcode\s*:\s*(-?\d+)", root_cause)
    if rank is None or exit_code is None:
        last = next((line.strip() for line in reversed(output) if line.strip()), "nothing")
        return f"the training's processes ended with code {code}; their last output is: {last}"
    advice = "their output is above; the same call resumes from the last checkpoint"
    if (number := -int(exit_code[1])) > 0:
        hint = ", as a machine does whose memory is full" if number == signal.SIGKILL else ""
        name = signal.Signals(number).name
        return f"process {rank[1]} of the training was ended by {name}{hint}, and the others with it; {advice}"
    error = next((line for line in output if ERROR_LINE.match(line)), None)
    cause = f" with {ERROR_LINE.sub('', error).strip()}" if error else ""
    return f"process {rank[1]} of the training failed{cause}, and the others were ended; {advice}"


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Turn a SIGTERM without a handler into SystemExit, so that the `finally` that ends the processes runs."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
