"""A stage is one name in four places."""

from pathlib import Path

import yaml

from longreward.params import SHARED_SECTIONS, Params, stage_names
from longreward.tasks.dvc_files import stage_entries

ROOT = Path(__file__).resolve().parents[2]
NOT_STAGES = {"__init__", "pipeline", "serve", "triggers"}


def test_the_graph_the_flows_the_settings_and_the_config_name_the_same_stages() -> None:
    graph = list(stage_entries(ROOT / "dvc.yaml"))
    flows = {file.stem for file in (ROOT / "flows").glob("*.py")} - NOT_STAGES
    sections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    assert graph == list(stage_names())
    assert flows == set(graph)
    assert set(sections) == set(graph) | set(SHARED_SECTIONS)
    assert set(Params.model_fields) == set(sections)


def test_each_stage_of_the_graph_runs_the_flow_of_its_name_and_depends_on_its_section_and_its_flow() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, entry in stage_entries(ROOT / "dvc.yaml").items():
        assert graph[name]["cmd"] == f"python -m longreward.flows.{name}"
        assert name in entry.sections
        assert Path(f"flows/{name}.py") in entry.inputs
        assert Path(f"metrics/{name}.json") in entry.outputs


def test_another_server_makes_no_data_and_no_training_anew() -> None:
    depend = {name for name, entry in stage_entries(ROOT / "dvc.yaml").items() if "server" in entry.sections}
    assert depend == {"sample", "evaluate", "benchmark"}


def test_everything_in_the_repository_that_a_stage_depends_on_is_there() -> None:
    made = {output for entry in stage_entries(ROOT / "dvc.yaml").values() for output in entry.outputs}
    for entry in stage_entries(ROOT / "dvc.yaml").values():
        for path in entry.inputs:
            of_a_stage = any(output in (path, *path.parents) for output in made)
            assert of_a_stage or path == Path("data/raw") or (ROOT / path).exists(), f"{entry.name}: {path}"
