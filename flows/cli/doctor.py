"""`longreward doctor`: check versions, servers, keys, GPU, disk and DVC, and say what to do."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreward.params import Params
    from longreward.tasks.doctor import Finding


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "doctor",
        help="check versions, servers, keys, GPU, disk and DVC, and say what to do",
        description="Looks at everything that a run needs and says what to do where something is missing (✗). It asks "
        "the servers of params.yaml one tiny question each, and the judge its real prompts on one tiny example: about "
        "eight questions and 10,000 tokens, which a provider charges for.",
    )
    command.add_argument("--params", type=Path, metavar="FILE", help="settings to look at (params.yaml)")
    command.add_argument("--offline", action="store_true", help="ask no server: no call is made or charged")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    """1 where a run would fail."""
    from longreward.tasks.doctor import Mark

    counts = dict.fromkeys(Mark, 0)
    for finding in _findings(options):
        _show(finding)
        counts[finding.mark] += 1
    bad, notes = counts[Mark.BAD], counts[Mark.NOTE]
    print(f"{bad or 'nothing'} to mend (✗)" + (f", {notes} to know (!)" if notes else ""))
    return 1 if bad else 0


def _findings(options: argparse.Namespace) -> Iterator["Finding"]:
    from longreward.tasks.doctor.environment import check_installed, check_machine
    from longreward.tasks.doctor.finding import good, note
    from longreward.tasks.doctor.project import check_project, is_project, kept_in
    from longreward.tasks.doctor.state import check_state

    yield from check_installed()
    yield from check_machine(kept_in())
    if is_project():
        yield from check_project()
        yield from check_state()
    else:
        todo = "`longreward init` makes one here, `longreward init FOLDER` elsewhere"
        yield note("project", f"{Path.cwd()} is none, so only the machine was looked at", todo)
    params, findings = _read(options.params, needed=is_project())
    yield from findings
    if params is None:
        return
    if options.offline:
        yield good("servers", "not asked (--offline)")
        return
    import asyncio

    from longreward.tasks.doctor.servers import check_remote, check_servers

    yield from asyncio.run(check_servers(params))
    if is_project():
        yield from asyncio.run(check_remote())


def _read(path: Path | None, *, needed: bool) -> tuple["Params | None", Sequence["Finding"]]:
    """The settings, and what is to be said of them; neither where no file is named outside a project."""
    from longreward.errors import ConfigError
    from longreward.params import read_params
    from longreward.tasks.doctor.finding import bad
    from longreward.tasks.doctor.project import check_settings

    if path is None and not needed:
        return None, ()
    try:
        params = read_params(path or Path("params.yaml"))
    except ConfigError as error:
        first, *keys = str(error).splitlines()
        return None, [bad("settings", line.strip(), "`longreward params` prints every key") for line in keys or [first]]
    return params, list(check_settings(params))


def _show(finding: "Finding") -> None:
    print(f"{finding.mark} {finding.subject:<14}{' '.join(finding.said.split())}")
    if finding.todo:
        print(f"{'':<16}→ {finding.todo}")
