"""The argument parser of every command: one form of errors, the nearest name for a mistyped one, `--version`, `-v`."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from longreward.utils.console import PROGRAM, print_error

USAGE_ERROR = 2
LISTED_NAMES = 20  # in an error message; the help lists more


class CommandParser(argparse.ArgumentParser):
    """A parser of the command or of a subcommand; argparse creates the parsers of subcommands by this class too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(*args, **kwargs)
        self.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,  # otherwise the default of a subcommand replaces `longreward -v run`
            help="also show the messages of Prefect, MLflow, DVC and transformers",
        )

    def error(self, message: str) -> NoReturn:
        """Print the error and where help is, without the usage, which is longer than the terminal for some commands."""
        print_error(f"{message} (see `{self.prog} --help`)")
        sys.exit(USAGE_ERROR)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reject unknown options here, where the command that they were given to is known."""
        parsed, extra = super().parse_known_args(args, namespace)
        if extra:
            argument = extra[0].partition("=")[0]
            options = [name for name in self._option_string_actions if name.startswith("--")]
            nearest = difflib.get_close_matches(argument, options, n=1)
            noun = "option" if argument.startswith("-") else "argument"
            self.error(unknown_name(noun, argument) + (f"; did you mean {nearest[0]}?" if nearest else ""))
        return parsed, extra

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        is_command = isinstance(action, argparse._SubParsersAction)
        noun = "command" if is_command else f"{'/'.join(action.option_strings) or action.dest} value"
        self.error(unknown_name(noun, str(value), map(str, action.choices)))


class _HelpFormatter(argparse.HelpFormatter):
    """Formats examples as shell commands, and no empty line above a list of subcommands."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith("example: "):
            return super()._fill_text(text, width, indent)
        command, *options = re.split(r" (?=-)", text)
        lines = [command]
        for option in options:
            if len(lines[-1]) + len(option) + len("  \\") <= width:
                lines[-1] += f" {option}"
            else:
                lines.append(f"  {option}")
        return " \\\n".join(lines)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            return "".join(self._format_action(command) for command in self._iter_indented_subactions(action))
        return super()._format_action(action)


class VersionAction(argparse.Action):
    """Prints the version of the installed package and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the version; the metadata of the package is read only now."""
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        sys.exit(0)


def unknown_name(noun: str, name: str, names: Iterable[str] = ()) -> str:
    """Return the error message for a name that does not exist: the nearest one, and all if they are few.

    >>> unknown_name("stage", "scor", ["sample", "score"])
    "unknown stage 'scor'; did you mean score? The stages are sample, score"
    >>> unknown_name("stage", "xyz", ["sample", "score"])
    "unknown stage 'xyz'; the stages are sample, score"
    """
    names = list(names)
    message = f"unknown {noun} {name!r}"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    all_names = f"he {noun}s are {', '.join(names)}" if 0 < len(names) <= LISTED_NAMES else ""
    if nearest:
        return f"{message}; did you mean {nearest[0]}?" + (f" T{all_names}" if all_names else "")
    return f"{message}; t{all_names}" if all_names else message
