"""`longreward init`: a new project folder for your own data."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "init",
        help="create a project folder for your own data",
        description="Creates a project folder: the settings of a preset, the graph of stages, and example data to "
        "replace by your own. Nothing is overwritten.",
    )
    command.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    command.add_argument("--preset", default="laptop", metavar="NAME", help="the preset of the settings (laptop)")
    command.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    from longreward.tasks.new_project import create_project, project_files

    project = create_project(options.folder, project_files(options.preset))
    texts = sum(name.suffix == ".txt" for name in project.files)
    print(f"{project.folder}: a new project")
    print(f"  data/raw      an example: questions on {texts} texts")
    print(f"  params.yaml   the settings, from the preset {options.preset}")
    print("  dvc.yaml      the stages")
    print("  README.md     how to use your own data, model and judge")
    if project.advice:
        print(f"  git           {project.advice}")
    print("next:")
    if project.folder != Path.cwd():
        print(f"  cd {options.folder}")
    print("  longreward doctor   check versions, data, keys and disk")
    print("  longreward plan     estimate calls, cost and time")
    print("  longreward run      run the whole pipeline")
    return 0
