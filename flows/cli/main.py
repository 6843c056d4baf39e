"""The entry point of `longreward`: builds the argument parser, runs a subcommand and maps errors to exit codes."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence

from longreward.errors import LongRewardError
from longreward.flows.cli import (
    benchmarks,
    compare,
    doctor,
    init,
    judge_check,
    ledger,
    plan,
    preflight,
    reward_bench,
    run,
    score,
    serve,
    study,
)

COMMANDS = (
    score,
    ledger,
    preflight,
    benchmarks,
    reward_bench,
    run,
    plan,
    serve,
    compare,
    study,
    init,
    doctor,
    judge_check,
)
"""In the order in which `longreward --help` lists them."""
WRITE_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code.

    0: success. 1: an error, whose text is on stderr. 2: wrong usage. 130: Ctrl-C or SIGTERM. 141: the reader of the
    output has closed it, as `head` does.
    """
    parser = argparse.ArgumentParser(
        prog="longreward",
        description="Improve long-context models with AI feedback: rewards, preference pairs, DPO, evaluation.",
    )
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(title="commands", metavar="")
    for command in COMMANDS:
        command.add_parser(subparsers)
    params = subparsers.add_parser("params", help="print every setting with its default and meaning, as Markdown")
    params.set_defaults(run=_print_params)
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 2
    for stream in (sys.stdout, sys.stderr):
        # A terminal with a small character set, or undecodable bytes in the text, must not lose the result.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = int(options.run(options))
        print(end="", flush=True)  # flush here: a failure at interpreter exit could not be reported
        return code
    except LongRewardError as error:
        print(f"longreward: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _discard_output()
            print("longreward: the output cannot be written: the disk is full", file=sys.stderr)
            return 1
        if error.errno in WRITE_REFUSED and error.filename:
            print(f"longreward: {error.filename}: {error.strerror}; choose another path", file=sys.stderr)
            return 1
        raise
    except KeyboardInterrupt:
        print("longreward: stopped; run the same command again to continue from the judge's replies", file=sys.stderr)
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
