"""The judge prompts of benchmarks: our own files, and published ones with their various slot markers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from longreward.errors import DataError
from longreward.judge.prompt_template import PromptTemplate, read_prompt, text_hash

SYSTEM = "You grade answers: read everything, compare, and be fair to each."
"""System prompt of our judge prompts for benchmarks; published prompts bring their own."""
FOLDER = Path(__file__).parent / "prompt_files"


def load_builtin_prompt(file: str, *, template: str) -> PromptTemplate:
    """Read our own benchmark prompt `prompt_files/<file>.txt`."""
    return read_prompt(FOLDER / f"{file}.txt", name=template)


def parse_positional_prompt(text: str, slots: Sequence[str], *, template: str, source: Path) -> PromptTemplate:
    """Parse a published prompt with `{}` for each of `slots`; DataError if it has more or fewer."""
    literals = text.split("{}")
    if len(literals) != len(slots) + 1:
        raise DataError(
            f"{source} has {len(literals) - 1} slots {{}}, expected {len(slots)} ({', '.join(slots)}); fetch the file "
            "again, or remove it to use our own prompt"
        )
    pieces = [piece for pair in zip(literals, [*slots, ""], strict=True) for piece in pair][:-1]
    return PromptTemplate(template, tuple(pieces), text_hash(text), official=True)


def parse_marked_prompt(text: str, slots: Mapping[str, str], *, template: str, source: Path) -> PromptTemplate:
    """Parse a published prompt with its own markers, which `slots` maps to slot names; DataError for a missing one."""
    missing = [marker for marker in slots if marker not in text]
    if missing:
        raise DataError(f"{source}: its prompt for {template} lacks {', '.join(missing)}; fetch the file again")
    split = re.split(f"({'|'.join(map(re.escape, slots))})", text)
    pieces = tuple(slots[piece] if index % 2 else piece for index, piece in enumerate(split))
    return PromptTemplate(template, pieces, text_hash(text), official=True)
