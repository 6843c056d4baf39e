"""Read what the published evaluation codes define: JSON files, prompts inside Python files, ratings in brackets."""

import ast
import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from longreward.errors import DataError
from longreward.utils.jsonl import BLOCK_SIZE, RowError, open_atomic, shorten

T = TypeVar("T")

_NUMBER = re.compile(r"\d+\.\d+|\d+")
_SEPARATORS = b" \t\r\n,"
_INTEGER = re.compile(r"[0-9]{1,4}")


def read_json(path: Path) -> Any:
    """Read a JSON file, with or without a byte order mark. Raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); fetch the file again") from error


def read_json_list(path: Path, parse: Callable[[Any, int], T]) -> list[T]:
    """Read a JSON file that holds a non-empty list; `parse` gets each entry and its index.

    Raises DataError with the number of the entry if `parse` raises RowError.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} must hold a JSON list with one entry per case")
    parsed = []
    for index, row in enumerate(rows):
        try:
            parsed.append(parse(row, index))
        except RowError as error:
            raise DataError(f"{path}, entry {index + 1}: {error}") from None
    return parsed


class IndexedJsonList(Generic[T]):
    """Random access to the entries of a JSON list by byte offset, so that they need not be in memory."""

    def __init__(self, path: Path, parse: Callable[[Any], T]) -> None:
        self._path, self._parse = path, parse

    def scan(self) -> Iterator[tuple[int, T]]:
        """Yield each entry with its offset, in order. Raises DataError, for a bad entry with its number."""
        try:
            with self._path.open("rb") as file:
                offset = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
                start, offset = _next_byte(file, offset)
                if start != b"[":
                    raise ValueError(f"it starts with {start!r}")
                number = 0
                while True:
                    start, offset = _next_byte(file, offset)
                    if start == b"]":
                        break
                    number += 1
                    row, end = _read_value(file, offset - 1)
                    yield offset - 1, self._parse(row)
                    offset = end
        except RowError as error:
            raise DataError(f"{self._path}, entry {number}: {error}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self._path} cannot be read as a JSON list ({error}); fetch the file again") from error
        if not number:
            raise DataError(f"{self._path} must hold a JSON list with one entry per case")

    def __getitem__(self, offset: int) -> T:
        """Return the entry at an offset that `scan` yielded; raises DataError if the file has changed since."""
        try:
            with self._path.open("rb") as file:
                return self._parse(_read_value(file, offset)[0])
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path} was changed while it was read; start again") from error


def _next_byte(file: IO[bytes], offset: int) -> tuple[bytes, int]:
    """Return the first byte that is no separator, and the offset after it; empty at the end of the file."""
    file.seek(offset)
    while (byte := file.read(1)) and byte in _SEPARATORS:
        pass
    return byte, file.tell()


def _read_value(file: IO[bytes], offset: int) -> tuple[Any, int]:
    """Return the JSON value that starts at an offset, and the offset after it. Raises ValueError."""
    file.seek(offset)
    data = b""
    while True:
        block = file.read(max(len(data), BLOCK_SIZE))
        data += block
        # An incremental decoder leaves out a character that is cut off at the end.
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=not block)
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            if not block:
                raise
        else:
            return value, offset + len(text[:end].encode())


def parse_text(row: Any, key: str, *, allow_blank: bool = True, default: str | None = None) -> str:
    """Return a text of a row. Raises RowError with the key and its value."""
    if not isinstance(row, Mapping):
        raise RowError(f"a JSON {type(row).__name__}, expected an object")
    value = row.get(key, default)
    if not isinstance(value, str) or not (allow_blank or value.strip()):
        raise RowError(f"{key} is {shorten(value)}, expected a text")
    return value


def parse_texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a non-empty list of texts of a row. Raises RowError with the key and its value."""
    value = row.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise RowError(f"{key} is {shorten(value)}, expected a non-empty list of texts")
    return tuple(value)


def write_json(path: Path, rows: Any) -> None:
    """Write an indented JSON file."""
    with open_atomic(path) as file:
        json.dump(rows, file, indent=2, ensure_ascii=False)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read_constant(code: Path, variable: str, kind: type[T], *, function: str | None = None) -> T:
    """Return the first literal of type `kind` that a Python file, or one of its functions, assigns to a variable.

    An f-string counts as a text with slots: `f"What is {name}?"`. The file is parsed, never executed.

    Raises DataError if there is no such assignment.
    """
    try:
        body: list[ast.stmt] = ast.parse(read_text(code)).body
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{code} cannot be read as Python: {error}") from error
    if function is not None:
        functions = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == function)
        body = next((node.body for node in functions), [])
    for node in ast.walk(ast.Module(body, [])):  # level by level
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == variable:
                literal = _evaluate(value)
                if isinstance(literal, kind):
                    return literal
    location = f"function {function}" if function else "file"
    raise DataError(
        f"{code}: the {location} assigns no {kind.__name__} to {variable}; fetch the file again, or remove it to use "
        "the built-in prompt"
    )


def _evaluate(node: ast.expr) -> Any:
    """Return the value of a literal; None for any other expression."""
    match node:
        case ast.JoinedStr(values=parts):
            return "".join(map(_evaluate, parts))
        case ast.FormattedValue(value=slot):
            return f"{{{ast.unparse(slot)}}}"
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def first_number_in_last_brackets(text: str) -> str | None:
    """Return the first number in the last `[[…]]`, as the published code of LongBench and LongBench-Chat parses it.

    Earlier brackets may be quotes from the judged answer. The published code checks no range.

    >>> first_number_in_last_brackets("It calls itself [[10]]. Rating: [[about 7.5 of 10]]")
    '7.5'
    """
    brackets = list(_brackets(text))
    numbers = _NUMBER.findall(brackets[-1]) if brackets else []
    return numbers[0] if numbers else None


def strict_rating(text: str, *, low: int, high: int) -> int | None:
    """Return the integer in the last `[[…]]`, if it is alone there and between `low` and `high`.

    >>> strict_rating("[[8]]", low=1, high=10), strict_rating("[[8/10]]", low=1, high=10)
    (8, None)
    """
    brackets = list(_brackets(text))
    content = brackets[-1].strip() if brackets else ""
    if not _INTEGER.fullmatch(content):
        return None
    return int(content) if low <= int(content) <= high else None


def _brackets(text: str) -> Iterator[str]:
    r"""Yield the matches of the published pattern `\[\[([^\]]+)\]\]` in linear time.

    With `re.findall` the pattern scans up to the next `]` from each `[[`, which is quadratic in replies with many
    opening brackets. All `[[` before one `]` match there or none does, so that one attempt per `]` is enough.
    """
    position = 0
    while (start := text.find("[[", position)) >= 0 and (end := text.find("]", start + 2)) >= 0:
        if end > start + 2 and text.startswith("]]", end):
            yield text[start + 2 : end]
            end += 1
        position = end + 1
