"""A new project folder: its files, git and DVC, created completely or not at all.

    params.yaml                    the settings of a preset, adapted to the project's own data
    dvc.yaml                       the stages; their code is installed
    data/raw                       example data: questions.jsonl and the texts that it refers to
    models/tiny-base               if the preset's base model is this one
    plots/bars_from_zero.json      a template for `dvc plots`
    data/excluded.jsonl            prompts that give no pair; blank
    prefect.yaml                   deployments for a work pool
    README.md, .gitignore, .dvcignore

After a change of the repository's dvc.yaml (a test compares the two):

    python -m longreward.tasks.new_project > tasks/project_template/dvc.yaml
"""

import itertools
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from longreward.builtin import TINY_BASE, TINY_BASE_FILES
from longreward.builtin.documents import make_document
from longreward.builtin.questions import faulty_answer, format_question, sample_questions
from longreward.builtin.word_lists import SOCIETIES, SOCIETY_KINDS
from longreward.errors import ConfigError, StateError
from longreward.params import Params, preset_path
from longreward.tasks.dvc_command import DVC
from longreward.tasks.dvc_files import RAW

TEMPLATES = Path(__file__).parent / "project_template"
PLOT_TEMPLATE = "plots/bars_from_zero.json"
TEMPLATE_FILES = {  # by their path in the project; packages leave out files with a leading dot
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    "README.md": "README.md",
    "dvc.yaml": "dvc.yaml",
    "prefect.yaml": "prefect.yaml",
    PLOT_TEMPLATE: "bars_from_zero.json",
    "data/excluded.jsonl": "excluded.jsonl",
}
RAW_DVC_FILE = RAW.with_name(RAW.name + ".dvc")
PROTECTED_PATHS = (Path(".dvc"), RAW, RAW_DVC_FILE, Path(TINY_BASE))
DVC_CONFIG = "[core]\n    analytics = false\n    autostage = false\n    check_update = false\n"
IMPORTED_MODULES = ("longreward", "prefect", "mlflow", "dvc", "torch", "transformers", "trl", "datasets")
EXAMPLE_DOCUMENTS, QUESTIONS_PER_DOCUMENT = 72, 3  # 18 held out: enough for a significant difference

PARAMS_HEADER = """\
# The settings of this project, created from the preset {preset}. `longreward params` prints the meaning and default
# of every key; the defaults are the paper's values. Pages such as docs/servers.md are in longreward's documentation.
"""
PREPARE_SECTION = """\
prepare:
  source: data/raw/questions.jsonl
  preference_share: {preference} # of the documents: to be sampled, scored and paired{rest}
  heldout_share: {heldout} # of the documents: only `evaluate` sees them
  seed: 0
"""
GRAPH_HEADER = """\
# The stages. Each is a Prefect flow (python -m longreward.flows.<stage>), a section of params.yaml and an MLflow run
# of one name. Their code is installed: after an upgrade, `longreward run --force` runs all of them again.
"""


@dataclass(frozen=True)
class NewProject:
    """A project that was created. If nothing was `committed`, `advice` says how to commit it."""

    folder: Path
    files: tuple[PurePosixPath, ...]
    committed: bool
    advice: str


def create_project(folder: Path, files: Mapping[PurePosixPath, bytes]) -> NewProject:
    """Write the files, initialize git and DVC where they are missing, and add the data to DVC.

    A new git repository gets a first commit; in an existing one, nothing is committed. Raises ConfigError if the folder
    is unsuitable or a file exists, StateError if writing, git or DVC fails: the folder is then as it was before.
    """
    folder = folder.resolve()
    _check_folder(folder, files)
    repository = _git_root(folder)
    with ExitStack() as rollback:
        try:
            for name, content in files.items():
                path = folder / name
                for parent in reversed([parent for parent in path.parents if not parent.exists()]):
                    rollback.callback(_remove_if_empty, parent)
                path.parent.mkdir(parents=True, exist_ok=True)
                rollback.callback(path.unlink, missing_ok=True)
                path.write_bytes(content)
            if repository is None:
                rollback.callback(shutil.rmtree, folder / ".git", ignore_errors=True)
                _run(folder, "git", "init", "--quiet")
            else:  # `dvc init` stages its own files
                unstage = ("rm", "-r", "--quiet", "--force", "--cached", "--ignore-unmatch", ".dvc", ".dvcignore")
                rollback.callback(_git, folder, *unstage)
            rollback.callback(shutil.rmtree, folder / ".dvc", ignore_errors=True)
            _run(folder, *DVC, "init", "--quiet", *([] if repository in (None, folder) else ["--subdir"]))
            (folder / ".dvc/config").write_text(DVC_CONFIG, encoding="utf-8")
            rollback.callback((folder / RAW_DVC_FILE).unlink, missing_ok=True)
            _run(folder, *DVC, "add", "--quiet", str(RAW))
            created = [str(name) for name in files if not name.is_relative_to(RAW)]
            advice = _commit(folder, [*created, ".dvc", str(RAW_DVC_FILE)], new=repository is None)
        except OSError as error:
            raise StateError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error
        rollback.pop_all()
    return NewProject(folder, tuple(files), committed=not advice, advice=advice)


def shadowing_modules(folder: Path) -> list[Path]:
    """Return the modules in `folder` that have the name of a package that the stages import.

    `python -m longreward.flows.<stage>` puts the current folder first on the import path.
    """
    if folder.resolve() == Path(__file__).resolve().parents[1]:
        return []  # the checkout of longreward itself
    candidates = [folder / name for module in IMPORTED_MODULES for name in (f"{module}.py", f"{module}/__init__.py")]
    return [path for path in candidates if path.exists()]


def project_files(preset: str) -> dict[PurePosixPath, bytes]:
    """Return the content of every file of a new project, by its path.

    Raises ConfigError if there is no such preset.
    """
    settings = adapt_preset(preset_path(preset).read_text(encoding="utf-8"), preset=preset)
    texts = {name: (TEMPLATES / file).read_text(encoding="utf-8") for name, file in TEMPLATE_FILES.items()}
    texts |= {f"data/raw/{name}": text for name, text in example_data().items()}
    texts["params.yaml"] = settings
    models = {}
    if Params.parse(yaml.safe_load(settings), source=f"the preset {preset}").policy.base_model == TINY_BASE:
        models = {f"{TINY_BASE}/{file.name}": file.read_bytes() for file in sorted(TINY_BASE_FILES.iterdir())}
    else:
        texts["dvc.yaml"] = texts["dvc.yaml"].replace(f"      - {TINY_BASE}\n", "")
    contents = {name: text.encode() for name, text in texts.items()} | models
    return {PurePosixPath(name): content for name, content in contents.items()}


def adapt_preset(text: str, *, preset: str) -> str:
    """Adapt the text of a preset to a project with its own data; comments stay.

    `prepare` reads the project's questions, with shares for a handful of documents. What needs the built-in corpus is
    switched off (gold facts, short instructions), so that the judge's reward selects the champion.
    """
    header, *sections = re.split(r"(?m)^(?=[a-z_]+:)", text)
    # Comments that are true only in the repository.
    header = re.sub(r"(?m)^# .*(?:The same settings as params\.yaml|docs/parameters\.md has).*\n", "", header)
    trains_sft = re.search(r"(?m)^  sft_model: *+(?:null|~)? *+(?:#.*)?$", text) is not None
    adapted = [PARAMS_HEADER.format(preset=preset) + header]
    for section in sections:
        if section.startswith("prepare:"):
            shares = ("0.35", "0.3", "; the rest trains `sft`") if trains_sft else ("0.6", "0.4", "")
            kept = re.findall(r"(?m)^  (?:over_window|answer_room):.*\n", section)  # these depend on the model
            section = PREPARE_SECTION.format(**dict(zip(("preference", "heldout", "rest"), shares, strict=True)))
            section += "".join(kept) + "\n"
        elif section.startswith("sft:") and f"base_model: {TINY_BASE}" in text:
            # With one epoch of so few answers the tiny model keeps those of its pretraining, which need no DPO.
            section = re.sub(r"(?m)^  epochs: 1\b.*$", "  epochs: 3 # of few answers", section)
        elif section.startswith("evaluate:"):
            section = re.sub(r"(?m)^  short: .*\n", "", section)
            section = re.sub(r"(?m)^  gold:.*$", "  gold: null # only the built-in corpus has gold facts", section)
            section = re.sub(r"(?m)\bmeasure: *\w+( *#.*)?", "measure: reward", section)
        adapted.append(section)
    return "".join(adapted)


def example_data() -> dict[str, str]:
    """Return the example's questions and texts by their path below data/raw; the same on every machine.

    It has the form of a user's own data: plain texts, and one line for each question that names its text's file. The
    words are those that the tiny base model knows, and the answers contain errors as those of the built-in corpus.
    """
    texts: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for number in itertools.count():
        document = make_document(f"example-{number}")
        society = re.search(rf"({'|'.join(SOCIETIES)}) ({'|'.join(SOCIETY_KINDS)})", document.text)
        assert society, "a document of the corpus names its society"
        name = f"documents/{'-'.join(society.groups()).lower()}.txt"
        if name in texts:
            continue
        if len(texts) == EXAMPLE_DOCUMENTS:
            break
        texts[name] = document.text + "\n"
        rng = random.Random(f"longreward example {number}")
        for facts in sample_questions(rng, document, QUESTIONS_PER_DOCUMENT):
            answer = faulty_answer(rng, document, facts)
            query = format_question(facts)
            rows.append({"idx": len(rows), "query": query, "answer": answer, "context_file": name})
    return {"questions.jsonl": "".join(json.dumps(row) + "\n" for row in rows), **texts}


def without_code(graph: str) -> str:
    """Return the text of the repository's dvc.yaml without the dependencies on code."""
    return GRAPH_HEADER + re.sub(r"(?m)^      - (?:flows|longreward|tasks)/.*\n", "", graph[graph.index("stages:\n") :])


def _check_folder(folder: Path, files: Mapping[PurePosixPath, bytes]) -> None:
    """Raise ConfigError if a project cannot be created in `folder`."""
    if not shutil.which("git"):
        raise ConfigError("git is not installed (or not on PATH); DVC needs it")
    if ".git" in folder.parts:
        raise ConfigError(f"{folder} is inside git's own folder; name another one")
    existing = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise ConfigError(f"{existing} is a file; name a folder")
    written = [Path(name) for name in files if not name.is_relative_to(RAW) and "tiny-base" not in name.parts]
    conflicts = [
        str(name)
        for name in (*PROTECTED_PATHS, *written)
        if os.path.lexists(folder / name) and not ((folder / name).is_dir() and not any((folder / name).iterdir()))
    ]
    if conflicts:
        raise ConfigError(
            f"{folder} already has {', '.join(sorted(conflicts))}, and nothing is overwritten: name a new folder, "
            "as in `longreward init my-project`, or move them away first"
        )
    if modules := shadowing_modules(folder):
        raise ConfigError(f"{modules[0]} would be imported instead of the installed package; rename it first")
    repository = _git_root(folder)
    if repository and _git(existing, "check-ignore", "--quiet", str(folder / "params.yaml")).returncode == 0:
        raise ConfigError(f"the git repository {repository} ignores {folder}; name a folder that it does not ignore")


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _git_root(folder: Path) -> Path | None:
    """Return the root of the git repository that contains `folder`, which need not exist."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    result = _git(existing, "rev-parse", "--show-toplevel")
    return Path(result.stdout.strip()).resolve() if result.returncode == 0 else None


def _commit(folder: Path, paths: list[str], *, new: bool) -> str:
    """Commit the paths in a new repository; otherwise return advice on how to commit."""
    if not new:
        return "nothing was committed; to do so: `git add . && git commit -m 'A new longreward project'`"
    if _git(folder, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT").returncode:
        return (
            "nothing was committed, as git has no user name: `git config --global user.name 'You'`, "
            "`git config --global user.email you@example.org`, then `git add . && git commit -m 'A new project'`"
        )
    _run(folder, "git", "add", "--", *paths)
    _run(folder, "git", "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", "A new longreward project")
    return ""


def _run(folder: Path, *command: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode:
        words = ["dvc", *command[len(DVC) :]] if command[: len(DVC)] == tuple(DVC) else command
        output = (result.stderr or result.stdout).strip()
        raise StateError(f"`{' '.join(words)}` failed, and no project was created: {output}")


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    print(without_code((Path(__file__).resolve().parents[1] / "dvc.yaml").read_text(encoding="utf-8")), end="")
