"""`longreward init` in real folders, with the real git and DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

from longreward.data.prepare import PrepareConfig, prepare
from longreward.params import preset_names, preset_path, read_params
from longreward.tasks.dvc_files import stage_entries
from longreward.tasks.new_project import project_files, without_code
from longreward.utils.jsonl import Row

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "LONGREWARD_", "DVC_"))},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
GIT_USER = {"GIT_CONFIG_COUNT": "2"} | {
    f"GIT_CONFIG_{part}_{n}": text
    for n, pair in enumerate((("user.name", "A User"), ("user.email", "a@example.org")))
    for part, text in zip(("KEY", "VALUE"), pair, strict=True)
}


def run(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=120, check=False
    )


def init(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    code = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"
    return run(folder, sys.executable, "-P", "-c", code, "init", *arguments, **environment, PYTHONPATH=str(ROOT))


def git(folder: Path, *arguments: str) -> str:
    return run(folder, "git", *arguments).stdout


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_new_project_has_graph_of_repository_without_code() -> None:
    """After a change of dvc.yaml: python -m longreward.tasks.new_project > tasks/project_template/dvc.yaml"""
    text = (ROOT / "tasks/project_template/dvc.yaml").read_text(encoding="utf-8")
    assert text == without_code((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    expected = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in expected.values():
        stage["deps"] = [path for path in stage["deps"] if path.split("/")[0] not in ("flows", "tasks", "longreward")]
    assert yaml.safe_load(text)["stages"] == expected


def test_new_project_has_deployments_of_repository() -> None:
    assert project_files("laptop")[PurePosixPath("prefect.yaml")] == (ROOT / "prefect.yaml").read_bytes()


@pytest.mark.parametrize("preset", preset_names())
def test_new_project_refers_to_existing_documentation(preset: str) -> None:
    texts = [content.decode() for name, content in project_files(preset).items() if name.suffix in (".yaml", ".md")]
    pages = {page for text in texts for page in re.findall(r"docs/[\w/-]+\.md", text)}
    assert pages
    assert not [page for page in pages if not (ROOT / page).is_file()]


@pytest.fixture(scope="module")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, str]":
    """Create a project in a folder that contains a file; return the folder and the output of `init`."""
    parent = tmp_path_factory.mktemp("init")
    folder = parent / "new/project"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes/secret").write_text("mine")
    result = init(parent, "new/project", **GIT_USER)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_init_commits_only_own_files(new_project: tuple[Path, str]) -> None:
    folder, output = new_project
    assert "cd new/project" in output
    assert git(folder, "log", "--format=%an %s") == "A User A new longreward project\n"
    assert git(folder, "status", "--porcelain") == "?? notes/\n"
    committed = git(folder, "ls-files").split()
    expected = {".dvc/config", "data/raw.dvc", "dvc.yaml", "models/tiny-base/model.safetensors", "params.yaml"}
    assert expected <= {*committed}
    assert not [name for name in committed if name.startswith("data/raw/")]


def test_git_ignores_stage_outputs(new_project: tuple[Path, str]) -> None:
    folder, _ = new_project
    entries = stage_entries(folder / "dvc.yaml").values()
    outputs = [str(path) for entry in entries for path in entry.outputs if path.parts[0] in ("data", "models")]
    assert len(outputs) == 9
    ignored = [*outputs, ".longreward/ledger.sqlite"]
    assert git(folder, "check-ignore", *ignored).split() == ignored


def test_dvc_detects_changed_raw_data(new_project: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(new_project[0], tmp_path / "copy")
    status = (sys.executable, "-m", "dvc", "status", "--json")
    assert "data/raw.dvc" not in json.loads(run(folder, *status).stdout)
    (folder / "data/raw/mine.txt").write_text("mine")
    assert "data/raw.dvc" in json.loads(run(folder, *status).stdout)


def test_without_git_user_nothing_committed_and_advice_printed(tmp_path: Path) -> None:
    result = init(tmp_path, HOME=str(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    assert "git config --global user.email" in result.stdout
    assert git(tmp_path, "rev-parse", "--verify", "HEAD") == ""
    assert (tmp_path / ".dvc/config").exists()


def test_folder_inside_repository_initialized_without_commit(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "--quiet")
    result = init(tmp_path, "study", **GIT_USER)
    assert result.returncode == 0, result.stderr
    assert "nothing was committed" in result.stdout
    assert (tmp_path / "study/.dvc").is_dir()
    assert not (tmp_path / "study/.git").exists()
    assert git(tmp_path, "rev-parse", "--verify", "HEAD") == ""


@pytest.mark.parametrize("name", ["params.yaml", "README.md", ".dvc/config", "data/raw/mine.jsonl", "data/raw.dvc"])
def test_existing_files_listed_and_unchanged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    result = init(tmp_path, **GIT_USER)
    assert result.returncode == 1
    named = {"data/raw/mine.jsonl": "data/raw", ".dvc/config": ".dvc"}.get(name, name)
    assert f"already has {named}, and nothing is overwritten" in result.stderr
    assert read_files(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file"], "is a file; name a folder"),
        (["file/project"], "is a file; name a folder"),
        (["x", "--preset", "labtop"], "did you mean laptop?"),
        (["ignored/x"], "ignores"),
        ([".git/x"], "git's own folder"),
        (["shadowed"], "shadowed/torch/__init__.py would be imported instead"),
    ],
)
def test_unsuitable_folder_rejected_before_writing(tmp_path: Path, arguments: list[str], message: str) -> None:
    run(tmp_path, "git", "init", "--quiet")
    (tmp_path / "file").touch()
    (tmp_path / ".gitignore").write_text("ignored/\n")
    (tmp_path / "shadowed/torch").mkdir(parents=True)
    (tmp_path / "shadowed/torch/__init__.py").touch()
    before = read_files(tmp_path)
    result = init(tmp_path, *arguments)
    assert (result.returncode, message in result.stderr) == (1, True), result.stderr
    assert read_files(tmp_path) == before


@pytest.mark.parametrize("command", ["init", "add"])
def test_dvc_failure_leaves_no_files(tmp_path: Path, command: str) -> None:
    """A DVC that fails precedes the real one on the path."""
    (tmp_path / "broken/dvc").mkdir(parents=True)
    (tmp_path / "broken/dvc/__init__.py").touch()
    (tmp_path / "broken/dvc/__main__.py").write_text(
        f"import sys, os\nif sys.argv[1] == {command!r}: sys.exit('the disk is gone')\n"
        "os.makedirs('.dvc')\nopen('.dvc/config', 'w').close()\nos.system('git add .dvc')\n"
    )
    (tmp_path / "project/models").mkdir(parents=True)
    (tmp_path / "project/models/mine").write_text("mine")
    code = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"
    run(tmp_path, "git", "init", "--quiet", "project")
    path = os.pathsep.join([str(tmp_path / "broken"), str(ROOT)])
    result = run(tmp_path / "project", sys.executable, "-P", "-c", code, "init", PYTHONPATH=path)
    assert result.returncode == 1
    assert f"`dvc {command}" in result.stderr
    assert "the disk is gone" in result.stderr
    assert sorted(path.name for path in (tmp_path / "project").iterdir()) == [".git", "models"]
    assert git(tmp_path / "project", "status", "--porcelain") == "?? models/\n"
    assert read_files(tmp_path / "project/models") == {"mine": b"mine"}


@pytest.mark.parametrize("preset", preset_names())
def test_presets_adapted_to_project_data(tmp_path: Path, preset: str) -> None:
    files = {str(name): content for name, content in project_files(preset).items()}
    (tmp_path / "params.yaml").write_bytes(files["params.yaml"])
    params = read_params(tmp_path / "params.yaml")
    shares = (0.6, 0.4) if params.policy.sft_model else (0.35, 0.3)
    window_settings = {
        key: getattr(read_params(preset_path(preset)).prepare, key) for key in ("over_window", "answer_room")
    }
    assert params.prepare == PrepareConfig(
        source="data/raw/questions.jsonl",
        preference_share=shares[0],
        heldout_share=shares[1],
        seed=0,
        **window_settings,
    )
    assert (params.evaluate.gold, params.evaluate.champion.measure) == (None, "reward")
    assert params.evaluate.short.source is None
    epochs = 3 if preset == "laptop" else read_params(preset_path(preset)).sft.epochs
    assert params.sft.epochs == epochs
    assert params.evaluate.champion.temperature in params.evaluate.temperatures
    assert files["params.yaml"].startswith(f"# The settings of this project, created from the preset {preset}".encode())
    includes_base = params.policy.base_model == "models/tiny-base"
    assert includes_base == (preset == "laptop")
    assert includes_base == (b"models/tiny-base" in files["dvc.yaml"]) == ("models/tiny-base/config.json" in files)


def test_example_questions_have_texts_and_splits_have_documents(tmp_path: Path) -> None:
    for name, content in project_files("laptop").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    config = read_params(tmp_path / "params.yaml").prepare
    figures = prepare(
        config, lambda context, query: len(context.split()), root=tmp_path, out=tmp_path / "out"
    ).metrics()
    assert (figures["records"], figures["bad"], figures["duplicates"]) == (216, 0, 0)
    documents = [figures[f"{split}/documents"] for split in ("sft", "preference", "heldout")]
    assert sum(documents) == 72
    assert min(documents) >= 12  # with fewer held-out documents, its report could show nothing
    first: Row = json.loads((tmp_path / "out/heldout.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["context"] == (tmp_path / "data/raw" / first["document"]).read_text(encoding="utf-8")


def test_wheel_installs_one_package_and_creates_same_project(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"  # a build leaves folders behind in its source
    source.mkdir()
    for name in (
        "longreward",
        "flows",
        "tasks",
        "configs",
        "models",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        (source / name).symlink_to(ROOT / name)
    built = run(tmp_path, *build, "-w", str(tmp_path), str(source))
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        top = {name.split("/")[0] for name in wheel.namelist()}
        wheel.extractall(tmp_path / "installed")
    assert {name for name in top if not name.endswith(".dist-info")} == {"longreward"}
    code = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"
    result = run(tmp_path, sys.executable, "-P", "-c", code, "init", "p", PYTHONPATH=str(tmp_path / "installed"))
    assert result.returncode == 0, result.stderr
    files = read_files(tmp_path / "p")
    for name, content in project_files("laptop").items():
        assert files[str(name)] == content


def test_failure_leaves_existing_repository_unchanged(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "--quiet")
    (tmp_path / "data").touch()  # where a folder should go
    result = init(tmp_path)
    assert (result.returncode, "cannot be written" in result.stderr) == (1, True), result.stderr
    assert git(tmp_path, "status", "--porcelain") == "?? data\n"
