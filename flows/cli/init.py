"""`longreward init`: a new project folder for your own data."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "init",
        help="a new project folder for your own data",
        description="Makes a project folder: settings from a preset, the graph of stages, a worked example to replace "
        "by your own data. It overwrites nothing.",
    )
    command.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    command.add_argument("--preset", default="laptop", metavar="NAME", help="whose settings it starts with (laptop)")
    command.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    from longreward.tasks.new_project import create_project, project_files

    made = create_project(options.folder, project_files(options.preset))
    texts = sum(name.suffix == ".txt" for name in made.files)
    print(f"{made.folder}: a project with the settings of the preset {options.preset}")
    print(f"  data/raw      questions on {texts} short texts, to replace by your own (README.md)")
    print("  params.yaml   every setting; dvc.yaml: the stages")
    if made.advice:
        print(f"  git           {made.advice}")
    print("next:")
    if made.folder != Path.cwd():
        print(f"  cd {options.folder}")
    print("  longreward doctor   what is missing, and what to do")
    print("  longreward run      the whole pipeline")
    return 0
