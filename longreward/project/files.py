"""The files of a new project, by their path in it.

params.yaml             a preset's settings, turned to the project's own data
dvc.yaml                the graph; the code that it runs is installed
data/raw                the worked example: questions.jsonl, and the texts that it names
models/tiny-base        where the preset's base model is this one
plots/bars_from_zero.json   how `dvc plots` draws an evaluation
prefect.yaml            deployments for a work pool
README.md, .gitignore, .dvcignore
"""

from importlib.resources import files
from pathlib import Path, PurePosixPath

from longreward.errors import ConfigError
from longreward.params import Params, preset_path
from longreward.project.example import example_files
from longreward.project.settings import own_data

TINY_BASE = "models/tiny-base"
PLOT = "plots/bars_from_zero.json"
PLAIN = {
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    "README.md": "README.md",
    "dvc.yaml": "dvc.yaml",
    "prefect.yaml": "prefect.yaml",
    PLOT: "bars_from_zero.json",
}


def project_files(preset: str) -> dict[PurePosixPath, bytes]:
    """Every file of a new project whose settings begin as those of the preset.

    Raises ConfigError where there is no such preset.
    """
    settings = own_data(preset_path(preset).read_text(encoding="utf-8"), preset=preset)
    texts = {target: _template(name) for target, name in PLAIN.items()}
    texts |= {f"data/raw/{name}": text for name, text in example_files().items()}
    made = {name: text.encode() for name, text in texts.items()}
    made["params.yaml"] = settings.encode()
    if _params(settings).policy.base_model == TINY_BASE:
        made |= {f"{TINY_BASE}/{file.name}": file.read_bytes() for file in sorted(tiny_base().iterdir())}
    else:
        made["dvc.yaml"] = _without_dependency(texts["dvc.yaml"], TINY_BASE).encode()
    return {PurePosixPath(name): content for name, content in made.items()}


def tiny_base() -> Path:
    """The folder of the tiny base model: in the installed package, or in the checkout that the package is part of."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "tiny_base", here.parents[2] / TINY_BASE):
        if (folder / "config.json").is_file():
            return folder
    raise ConfigError(f"the installed package lacks its tiny base model (looked in {here.parent}); install it anew")


def _template(name: str) -> str:
    return (files("longreward.project") / "template" / name).read_text(encoding="utf-8")


def _params(settings: str) -> Params:
    import yaml

    return Params.parse(yaml.safe_load(settings), source="the preset")


def _without_dependency(graph: str, path: str) -> str:
    return graph.replace(f"      - {path}\n", "")
