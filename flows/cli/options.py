"""The options by which a subcommand takes settings: `-S section.key=value`, and `--params FILE` or `--preset NAME`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreward.params import Params


def add_settings_arguments(command: argparse.ArgumentParser, *, params: str) -> None:
    """Adds them; `params` says in the help what `--params` is."""
    command.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="section.key=value", help="a setting"
    )
    settings = command.add_mutually_exclusive_group()
    settings.add_argument("--params", type=Path, metavar="FILE", help=params)
    settings.add_argument("--preset", metavar="NAME", help="settings from a file of configs/")


def load_settings(options: argparse.Namespace, *, default: Path | None) -> "Params":
    """The settings of the file that was named, else of `default` (None: the paper's), under the overrides."""
    from longreward.params import preset_path, read_params

    path = preset_path(options.preset) if options.preset is not None else options.params
    return read_params(path or default, options.overrides)
