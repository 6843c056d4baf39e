"""The command `longreward`: the library's subcommands, and those that run, compare, set up and check a pipeline.

Each module here adds one subcommand, and imports what is heavy only when that one runs.
"""

from collections.abc import Sequence

from flows.commands import compare, doctor, init, judge_check, plan, run, serve, study
from longreward import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """See `longreward.cli.main`."""
    more = (run.add, plan.add, serve.add, compare.add, study.add, init.add, doctor.add, judge_check.add)
    return cli.main(arguments, more=more)
