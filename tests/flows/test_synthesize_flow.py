"""The stage `synthesize`, disabled and with the offline writer."""

import json
from pathlib import Path

import pytest
from toy_project import ROOT, ToyProject

KELD = "Keld was founded by Ann Lee in 1905. The mill at Keld burned down in 1931. Tom Ray rebuilt the mill in 1950."


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> ToyProject:
    project = ToyProject(tmp_path, prefect_server)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    folder = tmp_path / "data/raw/documents"
    folder.mkdir()
    for name in ("Keld", "Moor", "Rill"):
        (folder / f"{name.lower()}.md").write_text(KELD.replace("Keld", name), encoding="utf-8")
    return project


@pytest.mark.slow
def test_synthesize_off_and_on(project: ToyProject) -> None:
    out = project.folder / "data/synthesized"
    settings = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (project.folder / "params.yaml").write_text(settings, encoding="utf-8")
    code, output = project.run("longreward.flows.synthesize")
    assert code == 0, output
    assert [file.read_bytes() for file in sorted(out.iterdir())] == [b"", b""]
    assert set(project.report("synthesize").metrics) == {"seconds"}

    on = settings.replace("documents: null", "min_tokens: 8\n  documents: data/raw/documents")
    on = on.replace("source: data/raw/builtin/corpus.jsonl", "source: data/synthesized/questions.jsonl")
    on = on.replace("preference_share: 0.12", "preference_share: 0").replace("heldout_share: 0.1", "heldout_share: 0")
    (project.folder / "params.yaml").write_text(on.replace("models/tiny-base", str(ROOT / "models/tiny-base")))
    for stage in ("synthesize", "prepare"):
        code, output = project.run(f"flows.{stage}")
        assert code == 0, output
    rows = [json.loads(line) for line in (out / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    report = project.report("synthesize")
    assert report.metrics["questions"] == len(rows) > 3
    assert report.metrics["documents"] == 3
    assert {row["document"] for row in rows} == {f"documents/{name}.md" for name in ("keld", "moor", "rill")}
    assert project.report("prepare").metrics["sft/examples"] == len(rows)
    (run,) = project.store.search_runs(
        [project.store.get_experiment_by_name("longreward").experiment_id],
        f"attributes.run_id = '{report.mlflow_run}'",
    )
    assert run.data.tags["judge"] == "offline-lexical-5"
    assert run.data.metrics["questions"] == len(rows)
