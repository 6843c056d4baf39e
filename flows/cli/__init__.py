"""The command `longreward`: the library's subcommands, and those that run, compare, set up and check a pipeline.

Each module here adds one subcommand, and imports what is heavy only when that one runs.
"""

from collections.abc import Sequence

from longreward.flows.cli import compare, doctor, init, judge_check, plan, run, score, serve, study


def main(arguments: Sequence[str] | None = None) -> int:
    """See `longreward.flows.cli.score.main`."""
    more = (run.add, plan.add, serve.add, compare.add, study.add, init.add, doctor.add, judge_check.add)
    return score.main(arguments, more=more)
