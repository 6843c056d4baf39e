"""Command-line options that several subcommands share: settings, the ledger, bounded integers."""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.errors import ConfigError
from longreward.flows.cli.parser import USAGE_ERROR, unknown_name

if TYPE_CHECKING:
    from longreward.data.predictions import PredictionFile
    from longreward.params import Params

PREDICTION_FIELDS = ("id", "prompt", "response")


def add_actions(command: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    """Return the subparsers for the actions of a command, which prints its help if none is named."""

    def print_help(_: argparse.Namespace) -> int:
        command.print_help()
        return USAGE_ERROR

    command.set_defaults(run=print_help)
    return command.add_subparsers(title="actions", metavar="ACTION")


def add_override_argument(command: argparse.ArgumentParser) -> None:
    """Add `-S section.key=value`."""
    command.add_argument(
        "-S",
        dest="overrides",
        action="append",
        default=[],
        metavar="section.key=value",
        help="override a setting; repeatable",
    )


def add_settings_arguments(command: argparse.ArgumentParser, *, default: str) -> None:
    """Add `-S`, `--params` and `--preset`; `default` says in the help where settings come from without the last two."""
    add_override_argument(command)
    source = command.add_mutually_exclusive_group()
    source.add_argument("--params", type=Path, metavar="FILE", help=f"a file of settings (default: {default})")
    source.add_argument("--preset", metavar="NAME", help="settings from a file of configs/")


def load_settings(options: argparse.Namespace, *, default: Path | None) -> "Params":
    """Read the settings of the file that was named, or of `default` (None: the paper's), with the overrides applied."""
    from longreward.params import preset_path, read_params

    path = preset_path(options.preset) if options.preset is not None else options.params
    return read_params(path or default, options.overrides)


def add_ledger_argument(command: argparse.ArgumentParser) -> None:
    """Add `--ledger`."""
    command.add_argument(
        "--ledger",
        type=Path,
        default=default_ledger(),
        metavar="FILE",
        help="the ledger of the judge's replies (default: ledger.sqlite in $LONGREWARD_STATE or .longreward)",
    )


def add_column_argument(command: argparse.ArgumentParser, records: str, fields: Sequence[str]) -> None:
    """Add `--column FIELD=COLUMN`; `records` says in the help what is read."""
    command.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help=f"read {records} from other columns; fields: {', '.join(fields)}",
    )


def parse_columns(arguments: Iterable[str], fields: Sequence[str]) -> dict[str, str]:
    """Return the columns of `--column` by field. Raises ConfigError for another field."""
    columns = {}
    for argument in arguments:
        field, _, column = argument.partition("=")
        if not column:
            raise ConfigError(f"--column is {argument!r}, expected FIELD=COLUMN, as in {fields[0]}=name")
        if field not in fields:
            raise ConfigError(unknown_name("--column field", field, fields))
        columns[field] = column
    return columns


def add_prediction_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options by which `read_prediction_file` reads the command's argument `predictions`."""
    command.add_argument("--format", default="auto", metavar="NAME", help="default: by the columns of the first row")
    add_column_argument(command, "predictions", PREDICTION_FIELDS)


def read_prediction_file(options: argparse.Namespace) -> "PredictionFile":
    """Read the predictions of another tool. Raises ConfigError or DataError."""
    from longreward.data.predictions import PredictionColumns, read_predictions

    columns = PredictionColumns(**parse_columns(options.column, PREDICTION_FIELDS))
    return read_predictions(str(options.predictions), format_name=options.format, columns=columns)


def default_ledger() -> Path:
    """Return the ledger of the runs in this folder."""
    return Path(os.environ.get("LONGREWARD_STATE") or ".longreward") / "ledger.sqlite"


def integer_between(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argument type for integers of this range."""

    def parse(text: str) -> int:
        number = int(text)
        if number < minimum or (maximum is not None and number > maximum):
            bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
            raise argparse.ArgumentTypeError(f"{number} is not {bounds}")
        return number

    parse.__name__ = "integer"  # argparse names the type in its error for text that is not a number
    return parse
