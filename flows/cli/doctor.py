"""`longreward doctor`: check everything that a run needs."""

import argparse
import asyncio
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.tasks.doctor.finding import Level
from longreward.utils.console import output_width, uses_color

if TYPE_CHECKING:
    from longreward.tasks.doctor.finding import Finding

INDENT = 16  # columns before the message of a finding


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "doctor",
        help="check versions, servers, keys, GPU, disk and DVC, with advice",
        description="Checks everything that a run needs, and says what to do about each problem (✗). It sends one "
        "small request to each server of params.yaml, and the real prompts with a tiny example to the judge: about "
        "eight requests and 10,000 tokens, which a provider charges for.",
    )
    command.add_argument("--params", type=Path, metavar="FILE", help="the settings to check (params.yaml)")
    command.add_argument("--offline", action="store_true", help="send no requests")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    """Return 1 if a run would fail."""
    counts = dict.fromkeys(Level, 0)
    for finding in _run_checks(options):
        for line in _format(finding):
            print(line)
        counts[finding.level] += 1
    notes = f", notes (!): {counts[Level.NOTE]}" if counts[Level.NOTE] else ""
    print(f"problems (✗): {counts[Level.FAILURE] or 'none'}{notes}")
    return 1 if counts[Level.FAILURE] else 0


def _format(finding: "Finding") -> list[str]:
    """Return the lines of a finding: wrapped on a terminal, one for the message and one for the advice elsewhere."""
    message = f"{finding.level} {finding.subject:<14}{' '.join(finding.message.split())}"
    advice = [f"{'':<{INDENT}}→ {finding.advice}"] if finding.advice else []
    if not sys.stdout.isatty():
        return [message, *advice]
    wrapped = [
        part
        for line in (message, *advice)
        for part in textwrap.wrap(
            line, output_width(), subsequent_indent=" " * INDENT, break_long_words=False, break_on_hyphens=False
        )
    ]
    if uses_color(sys.stdout):
        color = {Level.FAILURE: "\033[31m", Level.NOTE: "\033[33m"}.get(finding.level, "\033[32m")
        wrapped[0] = f"{color}{finding.level}\033[0m{wrapped[0][len(finding.level) :]}"
    return wrapped


def _run_checks(options: argparse.Namespace) -> "Iterator[Finding]":
    from longreward.tasks.doctor.environment import check_installation, check_machine
    from longreward.tasks.doctor.finding import note, ok
    from longreward.tasks.doctor.project import check_project, check_settings, is_project, storage_folders
    from longreward.tasks.doctor.state import check_state

    yield from check_installation()
    yield from check_machine(storage_folders())
    if is_project():
        yield from check_project()
        yield from check_state()
    else:
        advice = "`longreward init` creates one here, `longreward init FOLDER` elsewhere"
        yield note("project", f"{Path.cwd()} is not a project, so only the machine was checked", advice)
        if options.params is None:
            return
    params = yield from check_settings(options.params or Path("params.yaml"))
    if params is None:
        return
    if options.offline:
        yield ok("servers", "not checked (--offline)")
        return
    from longreward.tasks.doctor.servers import check_remote, check_servers

    yield from asyncio.run(check_servers(params))
    if is_project():
        yield from asyncio.run(check_remote())
