"""Training on two processes on CPUs, compared with the same training in one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from preference_pairs import make_pair

from longreward.data.formats import write_pairs
from longreward.errors import PolicyError, WorkerProcessDied
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.training.config import LoraSettings
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.launch import launcher as launcher_config
from longreward.training.launch import launcher as launching
from longreward.training.sft import SftConfig, train_sft
from longreward.utils.progress import observe_progress

ON_CPU = PolicyConfig(base_model="unused", device="cpu")
TEXTS = [
    ("the town is north of the river .", "where is the town ?", "it is north .", "it is south of the town ."),
    ("anna is the mayor and ben was it .", "who is mayor ?", "anna is the mayor .", "ben ."),
    ("the bridge was built in 1901 .", "when was it built ?", "in 1901 .", "in 1912 it was built ."),
    ("cara opened the bridge in 1930 .", "who opened it ?", "cara opened it .", "the river and anna ."),
    ("ben was the first mayor of the town .", "who was first ?", "ben was the first .", "cara ."),
    ("the river is south .", "where is the river ?", "south .", "north of the bridge ."),
]
SETTINGS = {
    "learning_rate": 5e-3,
    "max_steps": 4,
    "batch_size": 4,  # of six pairs: the second update of an epoch has two
    "bf16": False,
    "gradient_checkpointing": False,
    "group_by_length": False,  # so that each update has the same pairs, however many processes share it
    "scheduler": "constant",
    "warmup": 0,
    "log_steps": 1,
    "save_steps": 2,
}
TWO_PROCESSES = {"launcher": "accelerate", "launcher_config": "ddp", "processes": 2}
COMPARED_METRICS = ("loss", "grad_norm", "rewards/margins", "rewards/chosen")


class TrainingRun:
    """A training in a separate folder; `metrics` has the logged metrics by step."""

    def __init__(self, folder: Path, base: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.base, self.out, self.state, self.pairs = base, folder / "dpo", folder / "state", folder / "pairs.jsonl"
        self.metrics: list[tuple[int, dict[str, float]]] = []
        write_pairs(
            self.pairs,
            [
                make_pair(number, chosen, rejected, context=context, query=query)
                for number, (context, query, chosen, rejected) in enumerate(TEXTS)
            ],
        )

    def __call__(self, **changes):
        return train_dpo(
            TrainConfig.model_validate({**SETTINGS, **changes}),
            ON_CPU,
            sft_model=str(self.base),
            pairs=self.pairs,
            out=self.out,
            state=self.state,
            log=self.log,
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics.append((step, metrics))

    def weights(self) -> dict[str, torch.Tensor]:
        return load_policy(ON_CPU, self.out).model.state_dict()


@pytest.fixture
def run_in(tmp_path, tiny_policy):
    return lambda name: TrainingRun(tmp_path / name, tiny_policy)


@pytest.fixture
def fsdp_on_cpu(monkeypatch):
    """Let FSDP2 start on CPUs (fsdp_on_cpu.py)."""
    plain = launching.launch_command

    def command(*args, **kwargs):
        arguments = plain(*args, **kwargs)
        index = arguments.index("longreward.training.launch.worker")
        return [*arguments[: index - 1], str(Path(__file__).with_name("fsdp_on_cpu.py")), *arguments[index + 1 :]]

    monkeypatch.setattr(launching, "launch_command", command)
    monkeypatch.setattr(launcher_config, "GPU_ONLY", {})


def assert_same_training(result: TrainingRun, expected: TrainingRun, *, steps=(1, 2, 3, 4)) -> None:
    """Compare metrics to five digits and weights to 1e-4 (updates are 5e-3): float32 sums have another order."""
    assert [step for step, _ in result.metrics] == list(steps)
    expected_metrics = dict(expected.metrics)
    for step, metrics in result.metrics:
        for name in COMPARED_METRICS:
            assert metrics[name] == pytest.approx(expected_metrics[step][name], rel=1e-5, abs=1e-5), (step, name)
    weights = result.weights()
    for name, weight in expected.weights().items():
        assert weights[name].dtype == weight.dtype
        assert torch.allclose(weights[name], weight, atol=1e-4), name


def launched_processes(pid: int) -> list[psutil.Process]:
    """Return the launcher and the processes that it started: the folder of the job is an argument of all."""
    return [
        process for process in psutil.Process(pid).children(recursive=True) if "longreward-" in command_line(process)
    ]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_until_ended(processes: list[psutil.Process], timeout_s: float = 20.0) -> bool:
    """Return whether all processes end in time; a zombie has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            return True
        time.sleep(0.1)
    return False


def test_two_processes_train_as_one(run_in, capsys):
    single, double = run_in("one"), run_in("two")
    single()
    capsys.readouterr()
    progress = []
    with observe_progress(lambda estimate: progress.append((estimate.title, estimate.done, estimate.total))):
        report = double(**TWO_PROCESSES)
    assert_same_training(double, single)
    assert (report.steps, report.lengths.count) == (4, 6)
    assert progress[-1] == ("train, steps", 4, 4)
    assert not any(double.state.iterdir())
    assert double.metrics[-1][1]["loss"] < double.metrics[0][1]["loss"]
    output = capsys.readouterr().err
    assert output.count("6 pairs, nothing is cut") == 1  # log lines of the first process, and of no other


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_stopped_training_on_two_processes_resumes_exactly(run_in, fsdp_on_cpu, kind):
    changes = {"max_steps": 80, "learning_rate": 1e-4}  # long enough to be stopped, and to stay comparable
    shared = changes | TWO_PROCESSES | {"launcher_config": kind}
    single, double = run_in("one"), run_in("two")
    single(**changes)
    processes = []

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            processes.extend(launched_processes(os.getpid()))
            raise KeyboardInterrupt

    plain, double.log = double.log, stop
    with pytest.raises(KeyboardInterrupt):
        double(**shared)
    assert len(processes) == 3
    assert wait_until_ended(processes, timeout_s=1)
    assert not double.out.exists()
    [checkpoint, *_] = double.state.glob("*/checkpoint-*")
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir() == (kind == "fsdp2")

    double.log = plain
    report = double(**shared)
    assert 2 <= report.resumed_from < 80
    assert_same_training(double, single, steps=range(1, 81))


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["on", "off"])
def test_sharded_model_computes_own_reference(run_in, fsdp_on_cpu, sharing):
    single, double = run_in("one"), run_in("two")
    single(prefix_sharing=sharing)
    double(prefix_sharing=sharing, gradient_checkpointing=True, **TWO_PROCESSES | {"launcher_config": "fsdp2"})
    assert_same_training(double, single)
    assert double.metrics[0][1]["rewards/margins"] == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_reference_rounded_like_training(run_in, fsdp_on_cpu, kind):
    double = run_in("two")
    double(bf16=True, max_steps=1, **TWO_PROCESSES | {"launcher_config": kind})
    assert double.metrics[0][1]["rewards/margins"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_adapter_on_two_processes_merged(run_in, fsdp_on_cpu, kind):
    lora = LoraSettings(r=4, alpha=8)
    single, double = run_in("one"), run_in("two")
    single(lora=lora)
    double(lora=lora, gradient_checkpointing=True, **TWO_PROCESSES | {"launcher_config": kind})
    assert_same_training(double, single)
    assert (double.out / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_sft_on_two_processes_trains_as_one(tmp_path, tiny_policy, write_lines, fsdp_on_cpu, kind):
    """With shared documents on two processes, and without them on one."""
    rows = [
        {"idx": f"{n}-{q}", "context": c, "query": q, "answer": a}
        for n, (c, query, a, _) in enumerate(TEXTS)
        for q in (query, "who ?")
    ]
    data = write_lines(tmp_path / "sft.jsonl", rows)

    def losses(name: str, **changes) -> list[float]:
        result = []
        train_sft(
            SftConfig.model_validate({**SETTINGS, **changes}),
            ON_CPU,
            base=str(tiny_policy),
            data=data,
            out=tmp_path / name / "sft",
            state=tmp_path / name / "state",
            log=lambda step, metrics: result.append(metrics["loss"]),
        )
        return result

    two = losses("two", micro_batch=2, prefix_sharing="on", **TWO_PROCESSES | {"launcher_config": kind})
    assert two == pytest.approx(losses("one", prefix_sharing="off"), rel=1e-4)


@pytest.mark.slow
def test_killed_process_ends_others_and_is_named(run_in):
    double, processes = run_in("two"), []

    def kill(step: int, metrics: dict[str, float]) -> None:
        if not processes:
            processes.extend(launched_processes(os.getpid()))
            [second] = [process for process in processes if process.environ().get("RANK") == "1"]
            second.kill()

    double.log = kill
    with pytest.raises(
        WorkerProcessDied, match=r"process 1 of the training was ended by SIGKILL, as a machine does .* resumes"
    ):
        double(max_steps=10_000, **TWO_PROCESSES)
    assert wait_until_ended(processes, timeout_s=1)
    assert not double.out.exists()


@pytest.mark.slow
def test_error_is_same_as_in_one_process(run_in):
    double = run_in("two")
    with pytest.raises(PolicyError, match=r"(?s)6 of 6 pairs are longer than max_length.*pair 0"):
        double(max_length=16, **TWO_PROCESSES)
    assert not double.out.exists()


SCRIPT = """
import sys
from pathlib import Path
from test_launch import TWO_PROCESSES, TrainingRun

run = TrainingRun(Path(sys.argv[1]), Path(sys.argv[2]))
run.log = lambda step, metrics: print(step, flush=True)
run(max_steps=10_000, **TWO_PROCESSES)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_launcher(tmp_path, tiny_policy, number):
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path), str(tiny_policy)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        processes = launched_processes(process.pid)
        assert len(processes) == 3
        process.send_signal(number)
        code = process.wait(30)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT, signal.SIGKILL: -signal.SIGKILL}[number]
    assert wait_until_ended(processes)
