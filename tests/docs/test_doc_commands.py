"""The commands in the documentation exist, with these options and settings."""

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, ROOT, code_blocks, inline_code, page_name
from doc_settings import setting_exists

from longreward.config import CONFIGS
from longreward.flows.cli.main import COMMANDS
from longreward.params import parse_override, stage_names
from tools.command_reference import command_parsers

SHELL_LANGUAGES = ("", "sh")
SEPARATORS = ("&&", "|", "&", ";")
MAKE_TARGETS = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)?:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
# Placeholders for what a reader has to fill in.
PLACEHOLDER = re.compile(r"<[\w -]+>")
NO_VALUE = ("COMMAND", "…")


def shell_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command that this project or its Makefile provides."""
    for line in text.replace("\\\n", " ").splitlines():
        line = PLACEHOLDER.sub("placeholder", line).strip().removeprefix("$ ")
        if not re.match(r"(\w+=\S+ )*(longreward|make|python|dvc)\b", line):
            continue
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word in SEPARATORS:
                yield _command(words)
                words = []
            else:
                words.append(word)


def _command(words: list[str]) -> list[str]:
    """Remove assignments of variables before the command, and a redirection after it."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words[: words.index(">")] if ">" in words else words


COMMAND_LINES = [
    pytest.param(words, id=f"{page_name(page)}: {' '.join(words)}"[:90])
    for page in PAGES
    for block in code_blocks(page)
    if block.language in SHELL_LANGUAGES
    for words in shell_commands(block.text)
]


def test_commands_are_extracted() -> None:
    text = (
        "A=1 longreward run -S train.beta=0.3 \\\n  --name x && longreward compare last~1 last  # both\n$ make run\nx\n"
    )
    assert list(shell_commands(text)) == [
        ["longreward", "run", "-S", "train.beta=0.3", "--name", "x"],
        ["longreward", "compare", "last~1", "last"],
        ["make", "run"],
    ]
    assert len(COMMAND_LINES) > 50


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_command_is_accepted(words: list[str]) -> None:
    program, *arguments = words
    if program == "longreward":
        check_longreward(arguments)
    elif program == "make":
        assert arguments[0] in MAKE_TARGETS
    elif program == "python":
        check_python(arguments)


def check_longreward(arguments: list[str]) -> None:
    """Parse the arguments as the program does, and look up settings, presets and stages."""
    parser = argparse.ArgumentParser(prog="longreward", exit_on_error=False)
    subparsers = parser.add_subparsers()
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    for override in getattr(options, "overrides", []):
        key, _ = parse_override(override)
        assert setting_exists(key), f"{key} is not a setting"
    if preset := getattr(options, "preset", None):
        assert (CONFIGS / f"{preset}.yaml").is_file()
    assert set(getattr(options, "stages", [])) <= set(stage_names())


def check_python(arguments: list[str]) -> None:
    """Check that the script or module exists, and that it has the options."""
    if arguments[0].startswith("fastchat/"):  # a script of another project
        return
    if arguments[0] == "-m":
        name, options = arguments[1], arguments[2:]
        assert importlib.util.find_spec(name) is not None
        text = subprocess.check_output([sys.executable, "-m", name, "--help"], text=True) if options else ""
    else:
        name, options = arguments[0], arguments[1:]
        text = (ROOT / name).read_text(encoding="utf-8")
    for option in options:
        if option.startswith("--") and option != "--help":
            assert option.partition("=")[0] in text, f"{name} has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_in_text_exist(page: Path) -> None:
    parsers = command_parsers()
    for code in inline_code(page):
        words = code.split()
        if words[0] == "make" and len(words) > 1:
            assert words[1] in MAKE_TARGETS, code
        if words[0] != "longreward" or len(words) < 2 or words[1] in NO_VALUE or words[1].startswith("-"):
            continue
        command = " ".join(words[:3]) if " ".join(words[:3]) in parsers else " ".join(words[:2])
        assert command in parsers or words[1] == "params", code
        for option in re.findall(r"--[a-z-]+", code):
            assert command == "longreward params" or option in parsers[command]._option_string_actions, code


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "decisions"], ids=page_name)
def test_settings_in_text_exist(page: Path) -> None:
    sections = "|".join([*stage_names(), "policy", "judge", "server", "workers", "prices"])
    for code in inline_code(page):
        # Names of files (`sft.jsonl`) and attributes with calls (`policy.generate(…)`) are no settings.
        match = re.fullmatch(rf"((?:{sections})(?:\.[a-z_0-9]+)+)(?:[:=] ?.*)?", code)
        if match and not re.search(r"\.(jsonl|json|md|py|yaml)$", match[1]):
            assert setting_exists(match[1]), f"{page_name(page)}: {match[1]}"


YAML_BLOCKS = [
    pytest.param(block.text, id=f"{page_name(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(code_blocks(page))
    if block.language == "yaml"
]


@pytest.mark.parametrize("text", YAML_BLOCKS)
def test_settings_in_yaml_exist(text: str) -> None:
    for section, values in yaml.safe_load(PLACEHOLDER.sub("placeholder", text)).items():
        for key in _keys(values):
            assert setting_exists(".".join([section, *key])), ".".join([section, *key])


def _keys(values: object) -> Iterator[list[str]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield [str(key)]
            yield from ([str(key), *rest] for rest in _keys(value))
