"""Texts out of published Python files, read from their syntax tree; nothing of them is ever run."""

import ast
from pathlib import Path

from longreward.errors import DataError


def text_in(code: Path, variable: str, *, function: str | None = None) -> str:
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
