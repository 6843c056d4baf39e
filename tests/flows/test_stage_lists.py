"""The names of stages agree in dvc.yaml, flows, params.yaml and Params, and the paths that DVC reads exist."""

from pathlib import Path

import yaml

from longreward.params import COMMAND_SECTIONS, SHARED_SECTIONS, Params, stage_names
from longreward.tasks.dvc_files import stage_entries

ROOT = Path(__file__).resolve().parents[2]
NOT_STAGES = {"__init__", "distill", "pipeline", "serve", "triggers"}


def test_stage_names_agree() -> None:
    graph = list(stage_entries(ROOT / "dvc.yaml"))
    flows = {file.stem for file in (ROOT / "flows").glob("*.py")} - NOT_STAGES
    sections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    assert graph == list(stage_names())
    assert flows == set(graph)
    assert set(sections) == set(graph) | {*SHARED_SECTIONS, *COMMAND_SECTIONS}
    assert set(Params.model_fields) == set(sections)


def test_stage_commands_and_dependencies() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, entry in stage_entries(ROOT / "dvc.yaml").items():
        assert graph[name]["cmd"] == f"python -m longreward.flows.{name}"
        assert name in entry.sections
        assert Path(f"flows/{name}.py") in entry.inputs
        assert {Path(f"metrics/{name}.json"), Path(f"reports/{name}.json")} <= set(entry.outputs)


def test_server_settings_do_not_invalidate_training() -> None:
    depend = {name for name, entry in stage_entries(ROOT / "dvc.yaml").items() if "server" in entry.sections}
    assert depend == {"sample", "evaluate", "benchmark"}


def test_dependencies_exist() -> None:
    outputs = {output for entry in stage_entries(ROOT / "dvc.yaml").values() for output in entry.outputs}
    for entry in stage_entries(ROOT / "dvc.yaml").values():
        for path in entry.inputs:
            is_output = any(output in (path, *path.parents) for output in outputs)
            assert is_output or path == Path("data/raw") or (ROOT / path).exists(), f"{entry.name}: {path}"


def test_paths_that_dvc_ignores_exist() -> None:
    lines = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    paths = [line.strip("/") for line in lines if line.startswith("/")]
    assert "tasks/project_template" in paths  # its dvc.yaml is no pipeline of this repository
    assert [path for path in paths if not (ROOT / path).exists()] == []
