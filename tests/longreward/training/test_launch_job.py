import json
from pathlib import Path

import pytest

from longreward.errors import ConfigError, LongRewardError, PolicyError, StateError
from longreward.models.config import PolicyConfig
from longreward.training.dpo import TrainConfig
from longreward.training.launch import launcher
from longreward.training.launch.job import (
    MetricsReader,
    append_metrics,
    read_error,
    read_report,
    write_error,
    write_report,
)
from longreward.training.launch.launcher import (
    builtin_launcher_files,
    check_launcher,
    describe_failure,
    launch,
    launch_command,
    launcher_file,
)
from longreward.training.report import TrainingReport
from longreward.training.training_data import LengthStats

POLICY = PolicyConfig(base_model="unused")


def settings(**changes) -> TrainConfig:
    return TrainConfig.parse({"launcher": "accelerate", **changes}, source="params.yaml: train")


def write_launcher_file(folder: Path, text: str) -> str:
    (folder / "own.yaml").write_text(text, encoding="utf-8")
    return str(folder / "own.yaml")


def test_builtin_launcher_files():
    assert list(builtin_launcher_files()) == ["ddp", "fsdp2"]
    assert launcher_file(settings()).path == builtin_launcher_files()["fsdp2"]
    result = launcher_file(settings(launcher_config="ddp"))
    assert (result.path.name, result.kind, result.processes) == ("ddp.yaml", "MULTI_GPU", None)


def test_accelerate_reads_builtin_files():
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(builtin_launcher_files()["fsdp2"])).fsdp_config["fsdp_version"] == 2
    assert load_config_from_file(str(builtin_launcher_files()["ddp"])).fsdp_config == {}


def test_own_file_sets_number_of_processes(tmp_path):
    path = write_launcher_file(tmp_path, "distributed_type: MULTI_GPU\nnum_processes: 3\n")
    assert launcher_file(settings(launcher_config=path)).processes == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_processes: 2\n", "has no distributed_type"),
        ("[1, 2", "cannot be read"),
        ("distributed_type: FSDP\nnum_machines: 2\n", "is for 2 machines"),
        ("distributed_type: FSDP\nparallelism_config: {parallelism_config_cp_size: 2}\n", "context and tensor"),
    ],
)
def test_invalid_launcher_file_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        launcher_file(settings(launcher_config=write_launcher_file(tmp_path, text)))


def test_missing_launcher_file_lists_builtin_ones():
    with pytest.raises(ConfigError, match=r"fsdp3 cannot be read .*; name one of ddp, fsdp2, or the path"):
        launcher_file(settings(launcher_config="fsdp3"))


def test_device_map_and_launcher_exclude_each_other():
    on_several_gpus = POLICY.model_copy(update={"device_map": "auto"})
    with pytest.raises(ConfigError, match=r"policy.device_map \(auto\) puts one model over several GPUs"):
        check_launcher(settings(), on_several_gpus)
    check_launcher(TrainConfig(), on_several_gpus)


def test_deepspeed_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("longreward.training.launch.launcher.find_spec", lambda name: None)
    path = write_launcher_file(tmp_path, "distributed_type: DEEPSPEED\n")
    with pytest.raises(ConfigError, match="uses DeepSpeed, which is not installed"):
        check_launcher(settings(launcher_config=path), POLICY)


def test_fsdp_needs_gpus():
    on_cpu = POLICY.model_copy(update={"device": "cpu"})
    with pytest.raises(ConfigError, match=r"uses FSDP, .* set it to ddp"):
        check_launcher(settings(), on_cpu)
    check_launcher(settings(launcher_config="ddp"), on_cpu)


def test_processes_must_divide_batch():
    with pytest.raises(ConfigError, match=r"micro_batch x processes \(2 x 3\) must divide batch_size \(32\)"):
        settings(micro_batch=2, processes=3)


def test_launcher_settings_need_launcher():
    with pytest.raises(ConfigError, match=r"processes \(2\) needs a launcher: set launcher to accelerate"):
        TrainConfig.parse({"processes": 2}, source="params.yaml: train")


def test_processes_of_file_must_divide_batch(tmp_path):
    path = write_launcher_file(tmp_path, "distributed_type: MULTI_GPU\nnum_processes: 3\n")
    paths = {"model": "m", "data": tmp_path, "out": tmp_path, "state": tmp_path}
    with pytest.raises(ConfigError, match=r"(?s)train: on 3 processes.*micro_batch x processes \(1 x 3\)"):
        launch("train", settings(launcher_config=path), POLICY, **paths)


def test_on_cpus_processes_must_be_set(tmp_path):
    paths = {"model": "m", "data": tmp_path, "out": tmp_path, "state": tmp_path}
    with pytest.raises(ConfigError, match="set how many processes"):
        launch("train", settings(launcher_config="ddp"), POLICY.model_copy(update={"device": "cpu"}), **paths)


@pytest.mark.parametrize("bf16", [True, False])
def test_all_processes_get_resolved_precision(bf16, tmp_path, monkeypatch):
    def check_job(arguments, folder, log):
        assert arguments[arguments.index("--mixed_precision") + 1] == ("bf16" if bf16 else "no")
        assert json.loads((folder / "job.json").read_text())["settings"]["bf16"] is bf16
        return "done"

    monkeypatch.setattr(launcher, "resolve_without_model", lambda setting, policy: bf16 if setting == "auto" else None)
    monkeypatch.setattr(launcher, "_run_job", check_job)
    paths = {"model": "m", "data": tmp_path, "out": tmp_path, "state": tmp_path}
    assert launch("train", settings(launcher_config="ddp", processes=2), POLICY, **paths) == "done"


def test_precision_of_settings_overrides_file(tmp_path):
    arguments = " ".join(launch_command(Path("own.yaml"), 2, tmp_path, bf16=True)[3:])
    assert arguments == (
        "--config_file own.yaml --num_processes 2 --main_process_port 0 --mixed_precision bf16 "
        f"-m longreward.training.launch.worker {tmp_path}"
    )
    assert "--mixed_precision no" in " ".join(launch_command(Path("own.yaml"), 2, tmp_path, bf16=False))


def test_metrics_arrive_once_and_complete(tmp_path):
    logged = []
    reader = MetricsReader(tmp_path, lambda step, figures: logged.append((step, figures)))
    reader.poll()
    append_metrics(tmp_path, 1, {"loss": 0.5})
    reader.poll()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[2, {"lo')
        file.flush()
        reader.poll()
        file.write('ss": NaN}]\n')
    reader.poll()
    reader.poll()
    assert logged[0] == (1, {"loss": 0.5})
    assert [step for step, _ in logged] == [1, 2]


def test_report_round_trip(tmp_path):
    assert read_report(tmp_path) is None
    report = TrainingReport(LengthStats(2, 9, 7.5, 64, 0), steps=3, resumed_from=1, seconds=2.5, last={"loss": 0.1})
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report


def test_first_error_read_back(tmp_path):
    assert read_error(tmp_path) is None
    write_error(tmp_path, PolicyError("the GPU's memory is full"))
    write_error(tmp_path, StateError("a checkpoint cannot be read"))
    result = read_error(tmp_path)
    assert (type(result), str(result)) == (PolicyError, "the GPU's memory is full")
    assert isinstance(result, LongRewardError)


TORCHRUN = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "x.py", line 1, in <module>
[rank1]: ValueError: a mask of 3 for 4
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 76)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 77)
  traceback : Signal
"""


def test_describe_failure():
    failed = describe_failure(1, TORCHRUN.format(code=1).splitlines(keepends=True))
    assert failed.startswith("process 1 of the training failed with ValueError: a mask of 3 for 4, and the others")
    killed = describe_failure(1, TORCHRUN.format(code=-9).splitlines(keepends=True))
    assert killed.startswith("process 1 of the training was ended by SIGKILL, as a machine does whose memory is full")
    assert "full" not in describe_failure(1, TORCHRUN.format(code=-15).splitlines(keepends=True))
    assert describe_failure(2, ["usage: …\n", "error: no such option\n"]).endswith("output is: error: no such option")
