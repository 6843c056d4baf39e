"""The rating in what a judge of LongBench-Chat or LongBench said, read as the published code does, and to the letter.

Both look at the last `[[…]]` alone, since an analysis may quote brackets of the answer that it is about.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from longreward.errors import DataError


def first_number_in_last_brackets(text: str) -> str | None:
    """The first number inside the last `[[…]]`, as it is written there; None where there is none.

    The published code knows no bounds: a number outside of the scale counts as it is.

    >>> published("It calls itself [[10]]. Rating: [[about 7.5 of 10]]")
    '7.5'
    """
    brackets = list(_brackets(text))
    numbers = _NUMBER.findall(brackets[-1]) if brackets else []
    return numbers[0] if numbers else None


def strict_rating(text: str, *, low: int, high: int) -> int | None:
    """The last `[[…]]` where it holds a whole number from `low` to `high` and nothing else, as the prompt demands.

    >>> as_asked("[[8]]", low=1, high=10), as_asked("[[8/10]]", low=1, high=10), as_asked("[[0]]", low=1, high=10)
    (8, None, None)
    """
    brackets = list(_brackets(text))
    inside = brackets[-1].strip() if brackets else ""
    if not _WHOLE.fullmatch(inside):
        return None
    return int(inside) if low <= int(inside) <= high else None


def _brackets(text: str) -> Iterator[str]:
    r"""What `re.findall(r"\[\[([^\]]+)\]\]", text)`, as in the published code, returns, in linear time.

    The pattern scans to the next `]` from each of many `[[`. All that stand before one `]` match there or none does.
    """
    position = 0
    while (opened := text.find("[[", position)) >= 0 and (closed := text.find("]", opened + 2)) >= 0:
        if closed > opened + 2 and text.startswith("]]", closed):
            yield text[opened + 2 : closed]
            closed += 1
        position = closed + 1


_NUMBER = re.compile(r"\d+\.\d+|\d+")
_WHOLE = re.compile(r"[0-9]{1,4}")


# Texts out of published Python files, read from their syntax tree; nothing of them is ever run.


def read_string_constant(code: Path, variable: str, *, function: str | None = None) -> str:
    """The text that the file, or its function of that name, sets the variable to; DataError where it does not."""
    try:
        body: list[ast.stmt] = ast.parse(code.read_text(encoding="utf-8")).body
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise DataError(f"{code} cannot be read as Python: {error}") from error
    if function is not None:
        body = next((each.body for each in body if isinstance(each, ast.FunctionDef) and each.name == function), [])
    for line in body:
        if isinstance(line, ast.Assign) and [ast.unparse(each) for each in line.targets] == [variable]:
            value = line.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    where = f"function {function} that sets" if function else "line that sets"
    raise DataError(
        f"{code} has no {where} {variable} to a text; fetch the file anew, or leave it out and our own words are used"
    )
