"""Trainings on two processes of this machine's CPUs, each held against the same training in one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from longreward.data.formats import write_pairs
from longreward.errors import PolicyError, WorkerProcessDied
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.records import PreferencePair, Response
from longreward.training.config import LoraSettings
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.launch import launcher as launcher_config
from longreward.training.launch import launcher as launching
from longreward.training.sft import SftConfig, train_sft

ON_CPU = PolicyConfig(base_model="unused", device="cpu")
TEXTS = [
    ("the town is north of the river .", "where is the town ?", "it is north .", "it is south of the town ."),
    ("anna is the mayor and ben was it .", "who is mayor ?", "anna is the mayor .", "ben ."),
    ("the bridge was built in 1901 .", "when was it built ?", "in 1901 .", "in 1912 it was built ."),
    ("cara opened the bridge in 1930 .", "who opened it ?", "cara opened it .", "the river and anna ."),
    ("ben was the first mayor of the town .", "who was first ?", "ben was the first .", "cara ."),
    ("the river is south .", "where is the river ?", "south .", "north of the bridge ."),
]
ONE = {
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
TWO = {"launcher": "accelerate", "launcher_config": "ddp", "processes": 2}
SHOWN = ("loss", "grad_norm", "rewards/margins", "rewards/chosen")


class Run:
    """One training in a folder of its own; `figures` holds what was logged, by step."""

    def __init__(self, folder: Path, base: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.base, self.out, self.state, self.pairs = base, folder / "dpo", folder / "state", folder / "pairs.jsonl"
        self.figures: list[tuple[int, dict[str, float]]] = []
        write_pairs(self.pairs, [_pair(number, *texts) for number, texts in enumerate(TEXTS)])

    def __call__(self, **changes):
        return train_dpo(
            TrainConfig.model_validate({**ONE, **changes}),
            ON_CPU,
            sft_model=str(self.base),
            pairs=self.pairs,
            out=self.out,
            state=self.state,
            log=self.log,
        )

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.figures.append((step, figures))

    def weights(self) -> dict[str, torch.Tensor]:
        return load_policy(ON_CPU, self.out).model.state_dict()


def _pair(number: int, context: str, query: str, chosen: str, rejected: str) -> PreferencePair:
    one, other = (
        Response(id=f"{number}-{n}", example_id=str(number), query=query, text=text)
        for n, text in enumerate((chosen, rejected))
    )
    return PreferencePair(
        id=str(number),
        context=context,
        query=query,
        chosen=one,
        rejected=other,
        chosen_reward=9.0,
        rejected_reward=3.0,
    )


@pytest.fixture
def run_in(tmp_path, tiny_policy):
    return lambda name: Run(tmp_path / name, tiny_policy)


@pytest.fixture
def fsdp_on_cpu(monkeypatch):
    """Lets FSDP2 start on CPUs: see fsdp_on_cpu.py."""
    plain = launching.launch_command

    def command(*args, **named):
        words = plain(*args, **named)
        at = words.index("longreward.training.launch.worker")
        return [*words[: at - 1], str(Path(__file__).with_name("fsdp_on_cpu.py")), *words[at + 1 :]]

    monkeypatch.setattr(launching, "launch_command", command)
    monkeypatch.setattr(launcher_config, "GPU_ONLY", {})


def assert_same_training(result: Run, expected: Run, *, steps=(1, 2, 3, 4)) -> None:
    """Float32 sums in another order: five digits of each figure, and each weight to 1e-4 (updates are of 5e-3)."""
    assert [step for step, _ in result.figures] == list(steps)
    expected_metrics = dict(expected.figures)
    for step, figures in result.figures:
        for name in SHOWN:
            assert figures[name] == pytest.approx(expected_metrics[step][name], rel=1e-5, abs=1e-5), (step, name)
    weights = result.weights()
    for name, weight in expected.weights().items():
        assert weights[name].dtype == weight.dtype
        assert torch.allclose(weights[name], weight, atol=1e-4), name


def processes_of(pid: int) -> list[psutil.Process]:
    """The launcher and those that it started: all are told the job's folder."""
    return [one for one in psutil.Process(pid).children(recursive=True) if "longreward-" in _words(one)]


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def gone(processes: list[psutil.Process], within: float = 20.0) -> bool:
    """Whether they all end; a zombie that awaits its parent has ended."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
            return True
        time.sleep(0.1)
    return False


def test_two_processes_train_as_one(run_in, capsys):
    one, two = run_in("one"), run_in("two")
    one()
    capsys.readouterr()
    report = two(**TWO)
    assert_same_training(two, one)
    assert (report.steps, report.lengths.count) == (4, 6)
    assert not any(two.state.iterdir())
    assert two.figures[-1][1]["loss"] < two.figures[0][1]["loss"]
    shown = capsys.readouterr().err
    assert shown.count("6 pairs, nothing is cut") == 1  # log lines of the first process, and of no other


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_stopped_training_on_two_processes_resumes_exactly(run_in, fsdp_on_cpu, kind):
    changes = {"max_steps": 80, "learning_rate": 1e-4}  # long enough to be stopped, and to stay comparable
    shared = changes | TWO | {"launcher_config": kind}
    one, two = run_in("one"), run_in("two")
    one(**changes)
    started = []

    def stop(step: int, figures: dict[str, float]) -> None:
        if step == 3:
            started.extend(processes_of(os.getpid()))
            raise KeyboardInterrupt

    plain, two.log = two.log, stop
    with pytest.raises(KeyboardInterrupt):
        two(**shared)
    assert len(started) == 3
    assert gone(started, within=1)
    assert not two.out.exists()
    [checkpoint, *_] = two.state.glob("*/checkpoint-*")
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir() == (kind == "fsdp2")

    two.log = plain
    report = two(**shared)
    assert 2 <= report.resumed_from < 80
    assert_same_training(two, one, steps=range(1, 81))


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["on", "off"])
def test_sharded_model_computes_own_reference(run_in, fsdp_on_cpu, sharing):
    one, two = run_in("one"), run_in("two")
    one(prefix_sharing=sharing)
    two(prefix_sharing=sharing, gradient_checkpointing=True, **TWO | {"launcher_config": "fsdp2"})
    assert_same_training(two, one)
    assert two.figures[0][1]["rewards/margins"] == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_reference_rounded_like_training(run_in, fsdp_on_cpu, kind):
    two = run_in("two")
    two(bf16=True, max_steps=1, **TWO | {"launcher_config": kind})
    assert two.figures[0][1]["rewards/margins"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_adapter_on_two_processes_merged(run_in, fsdp_on_cpu, kind):
    lora = LoraSettings(r=4, alpha=8)
    one, two = run_in("one"), run_in("two")
    one(lora=lora)
    two(lora=lora, gradient_checkpointing=True, **TWO | {"launcher_config": kind})
    assert_same_training(two, one)
    assert (two.out / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_sft_on_two_processes_trains_as_one(tmp_path, tiny_policy, write_lines):
    rows = [{"idx": str(n), "context": c, "query": q, "answer": a} for n, (c, q, a, _) in enumerate(TEXTS)]
    data = write_lines(tmp_path / "sft.jsonl", rows)

    def losses(name: str, **changes) -> list[float]:
        result = []
        train_sft(
            SftConfig.model_validate({**ONE, **changes}),
            ON_CPU,
            base=str(tiny_policy),
            data=data,
            out=tmp_path / name / "sft",
            state=tmp_path / name / "state",
            log=lambda step, figures: result.append(figures["loss"]),
        )
        return result

    assert losses("two", **TWO) == pytest.approx(losses("one"), rel=1e-5)


@pytest.mark.slow
def test_killed_process_ends_others_and_is_named(run_in):
    two, started = run_in("two"), []

    def kill(step: int, figures: dict[str, float]) -> None:
        if not started:
            started.extend(processes_of(os.getpid()))
            [second] = [one for one in started if one.environ().get("RANK") == "1"]
            second.kill()

    two.log = kill
    with pytest.raises(
        WorkerProcessDied, match=r"process 1 of the training was ended by SIGKILL, as a machine does .* resumes"
    ):
        two(max_steps=10_000, **TWO)
    assert gone(started, within=1)
    assert not two.out.exists()


@pytest.mark.slow
def test_error_is_same_as_in_one_process(run_in):
    two = run_in("two")
    with pytest.raises(PolicyError, match=r"(?s)6 of 6 pairs are longer than max_length.*pair 0"):
        two(max_length=16, **TWO)
    assert not two.out.exists()


STARTER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_launch import TWO, Run

run = Run(Path(sys.argv[2]), Path(sys.argv[3]))
run.log = lambda step, figures: print(step, flush=True)
run(max_steps=10_000, **TWO)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_launcher(tmp_path, tiny_policy, number):
    words = [sys.executable, "-c", STARTER, str(Path(__file__).parent), str(tmp_path), str(tiny_policy)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "1\n"
        started = processes_of(starter.pid)
        assert len(started) == 3
        starter.send_signal(number)
        code = starter.wait(30)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT, signal.SIGKILL: -signal.SIGKILL}[number]
    assert gone(started)
