"""Describe every subcommand of `longreward` in Markdown, from its argument parser.

The documentation site includes this text in `docs/command-line.md`; `python tools/command_reference.py` prints it.
"""

import argparse
from collections.abc import Iterator
from functools import partial

from longreward.flows.cli.main import COMMANDS


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each subcommand and action by its full name (`longreward ledger merge`)."""
    root = argparse.ArgumentParser(prog="longreward")
    subparsers = root.add_subparsers()
    for command in COMMANDS:
        command.add_parser(subparsers)
    return dict(_nested_parsers(root))


def commands_markdown() -> str:
    """Return one section per command: its description, usage and a table of its arguments."""
    return "\n".join(_section(name, parser) for name, parser in command_parsers().items())


def _nested_parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # argparse has no public access to the parsers of subcommands
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help for choice in action._choices_actions}
            for name, child in action.choices.items():
                child.description = child.description or summaries.get(name)
                yield child.prog, child
                yield from _nested_parsers(child)


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    level = "##" if name.count(" ") == 1 else "###"
    lines = [f"{level} {name}", ""]
    if parser.description:
        lines += [_sentence(parser.description), ""]
    parser.formatter_class = partial(argparse.HelpFormatter, width=100)
    lines += ["```text", parser.format_usage().removeprefix("usage: ").rstrip(), "```", ""]
    if parser.epilog:
        lines += [_sentence(parser.epilog), ""]
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    rows = [_row(action) for action in parser._actions if not isinstance(action, hidden)]
    if rows:
        lines += ["| argument | meaning |", "|---|---|", *(f"| {flag} | {text} |" for flag, text in rows), ""]
    return "\n".join(lines)


def _row(action: argparse.Action) -> tuple[str, str]:
    """Return how an argument is written, and its help with the default filled in."""
    metavar = action.metavar if isinstance(action.metavar, str) else (action.dest or "").upper()
    if action.choices is not None and action.metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    names = [f"`{name}`" for name in action.option_strings] or [f"`{metavar}`"]
    if action.option_strings and action.nargs != 0:
        names[-1] = f"`{action.option_strings[-1]} {metavar}`"
    help_text = (action.help or "") % {**vars(action), "prog": "longreward"}
    return ", ".join(names), _cell(help_text)


def _sentence(text: str) -> str:
    text = _cell(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".")


def _cell(text: str) -> str:
    """Return text for a cell of a table. HTML and the borders of the table are escaped."""
    text = " ".join(text.split())
    return text.replace("<", "&lt;").replace("|", "\\|")


if __name__ == "__main__":
    print(commands_markdown())
