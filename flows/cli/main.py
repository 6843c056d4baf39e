"""The entry point of `longreward`: builds the argument parser, runs a subcommand and maps errors to exit codes."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence

from longreward.errors import LongRewardError, UsageError
from longreward.flows.cli import (
    benchmarks,
    compare,
    distill,
    doctor,
    import_predictions,
    init,
    judge_check,
    ledger,
    plan,
    preflight,
    review,
    reward_bench,
    run,
    score,
    serve,
    study,
    view,
)
from longreward.flows.cli.parser import USAGE_ERROR, CommandParser, VersionAction
from longreward.utils.console import PROGRAM, print_error, quiet_libraries, set_verbose

COMMANDS = (
    init,
    doctor,
    plan,
    run,
    serve,
    compare,
    view,
    study,
    import_predictions,
    score,
    judge_check,
    review,
    reward_bench,
    distill,
    ledger,
    preflight,
    benchmarks,
)
"""In the order in which `longreward --help` lists them."""
EXIT_CODES = (
    "Exit codes: 0 success; 1 an error, or a check that failed; 2 wrong usage; 130 stopped by Ctrl-C; 143 stopped by "
    "SIGTERM; 141 the reader of the output has ended, as `head` does."
)
WRITE_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code, see EXIT_CODES."""
    parser = CommandParser(
        prog=PROGRAM,
        description="Improve long-context models with AI feedback: rewards, preference pairs, DPO, evaluation.",
        epilog=f"`{PROGRAM} COMMAND --help` explains a command. {EXIT_CODES}",
    )
    parser.add_argument("--version", action=VersionAction)
    parser.set_defaults(run=None, verbose=False)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    params = subparsers.add_parser("params", help="print every setting with its default and meaning, as Markdown")
    params.set_defaults(run=_print_params)
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return USAGE_ERROR
    if options.verbose:
        set_verbose()
    quiet_libraries()
    for stream in (sys.stdout, sys.stderr):
        # A terminal with a small character set, or undecodable bytes in the text, must not lose the result.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = int(options.run(options))
        print(end="", flush=True)  # flush here: a failure at interpreter exit could not be reported
        return code
    except LongRewardError as error:
        print_error(error)
        return USAGE_ERROR if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _discard_output()
            print_error("the output cannot be written: the disk is full")
            return 1
        if error.errno in WRITE_REFUSED and error.filename:
            print_error(f"{error.filename}: {error.strerror}; choose another path")
            return 1
        raise
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; run the same command again to continue from the judge's replies", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Redirect stdout to the null device, so that the interpreter's last flush does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_params(options: argparse.Namespace) -> int:
    from longreward.params import parameters_markdown

    print(parameters_markdown(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
