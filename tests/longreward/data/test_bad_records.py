"""Every reader rejects single records with unusable values, with file and line, and continues."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pytest
from pyarrow import parquet

from longreward.data.file_source import find_files
from longreward.data.open_source import open_source
from longreward.data.source import SourceLocation
from longreward.errors import DataError
from longreward.utils.jsonl import RowError

GOOD = '{"idx": 1, "query": "q", "context": "c"}'


def read(root: Path, name: str, **settings: Any) -> list[tuple[SourceLocation, Any]]:
    return list(find_files(root, name, **settings).rows())


def reasons(rows: list[tuple[SourceLocation, Any]]) -> list[str | None]:
    """Return for each record its location and reason if it is rejected, otherwise None."""
    return [f"{location}: {row}" if isinstance(row, RowError) else None for location, row in rows]


BAD_VALUES = [
    (r'"\ud83d"', "'query' has half of a surrogate pair (U+D83D at character 0)"),
    (r'"a \udcff"', "'query' is not UTF-8 (byte 0xff at character 2)"),
    (r'"a \u0000 b"', "'query' has a NUL character (at character 2)"),
    (r'{"deep": [{"\ud800": 1}]}', "'query' has half of a surrogate pair"),
    ("9" * 5000, "a whole number of"),
    ("NaN", "NaN is not JSON; write null"),
    ("[-Infinity]", "-Infinity is not JSON"),
]


@pytest.mark.parametrize(("value", "reason"), BAD_VALUES)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_unusable_value_is_one_bad_record(tmp_path: Path, kind: str, value: str, reason: str) -> None:
    bad = GOOD.replace('"q"', value)
    text = f"{GOOD}\n{bad}\n{GOOD}\n" if kind == "jsonl" else f"[{GOOD}, {bad}, {GOOD}]"
    (tmp_path / f"x.{kind}").write_text(text)
    first, second, third = reasons(read(tmp_path, f"x.{kind}"))
    assert (first, third) == (None, None)
    assert second is not None
    assert second.startswith("x.jsonl, line 2: " if kind == "jsonl" else "x.json, row 1: ")
    assert reason in second


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"q": "\xff"}', "not UTF-8 (byte 0xff at column 8)"),
        (b'\xef\xbb\xbf{"q": 1}', "not JSON"),  # a byte order mark within the file, as `cat a b` leaves it
        (b"\0" * 40, "not JSON"),  # what a crash leaves of a file that was being written
        (b"[" * 100_000, "nested too deeply"),
        (b'{"q": ' + b'{"q": ' * 100_000, "nested too deeply"),
    ],
)
def test_invalid_json_line_is_one_bad_record(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"q": 0}\n' + line + b'\n{"q": 2}')
    (_, first), (location, bad), (_, last) = read(tmp_path, "x.jsonl")
    assert (first, last, location.number) == ({"q": 0}, {"q": 2}, 2)
    assert reason in str(bad)


def test_invalid_utf_8_is_one_bad_record(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'q,n\n"two\nlines",1\n"caf\xe9\nau lait",2\nlast,3\n')
    (tmp_path / "x.json").write_bytes(b'[{"q": "one"}, {"q": "caf\xe9"}, {"q": "last"}]')
    texts = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 3, 7, 11], pa.int32()).buffers()[1], pa.py_buffer(b"onecaf\xe9last")]
    )
    parquet.write_table(pa.table({"q": texts}), tmp_path / "x.parquet")
    assert reasons(read(tmp_path, "x.csv")) == [
        None,
        "x.csv, line 4: 'q' is not UTF-8 (byte 0xe9 at character 3)",
        None,
    ]
    assert reasons(read(tmp_path, "x.json")) == [
        None,
        "x.json, row 1: 'q' is not UTF-8 (byte 0xe9 at character 3)",
        None,
    ]
    assert reasons(read(tmp_path, "x.parquet")) == [
        None,
        "x.parquet, row 1: not UTF-8 (byte 0xe9 at 3 of a text)",
        None,
    ]


def test_utf_16_reported(tmp_path: Path) -> None:
    for name, text in {"x.jsonl": GOOD, "y.csv": "a,b\n1,2\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-16")
        with pytest.raises(DataError, match=f"{name} is UTF-16; save it as UTF-8"):
            read(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q,n\n1,2\n1,2,3\n4,5\n", [None, "line 3: 3 cells, and the header has 2", None]),
        ('q,n\n1,"a"b\n4,5\n', ["line 2: not CSV", None]),
        ("q,n\n\n1,2\n3\n", [None, "line 4: 1 cells, and the header has 2"]),
        ('q,n\n1,2\n"never closed,3\n4,5\n', [None, "line 3: not CSV (unexpected end of data)"]),
    ],
)
def test_csv_record_with_other_columns_is_one_bad_record(tmp_path: Path, text: str, expected: list[str | None]) -> None:
    (tmp_path / "x.csv").write_text(text)
    actual = reasons(read(tmp_path, "x.csv"))
    assert len(actual) == len(expected)
    for reason, part in zip(actual, expected, strict=True):
        assert reason is None if part is None else reason is not None and part in reason


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.csv"])
def test_line_over_limit_rejected_without_loading(tmp_path: Path, name: str) -> None:
    """20 MB in one line, a limit of 1 MiB: Python's memory stays below 5 MB, and the records around it are read."""
    line = b'{"q": "%s"}\n' if name != "x.csv" else b"%s\n"
    content = b"".join(line % text for text in (b"q", b"a", b"x" * 20_000_000, b"b"))
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    del content
    tracemalloc.start()
    try:
        *before, (location, bad), (_, last) = read(tmp_path, name, max_record_mib=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (before[-1][1], last, location.number) == ({"q": "a"}, {"q": "b"}, 3)
    assert str(bad) == "the line has 19.1 MiB, more than prepare.max_record_mib (1)"
    assert peak < 5e6


def test_line_of_maximum_length_read(tmp_path: Path) -> None:
    exact = json.dumps({"q": "x" * (2**20 - len('{"q": ""}'))})
    (tmp_path / "x.jsonl").write_text(f"{exact}\n{exact} \n{exact}")
    assert [isinstance(row, RowError) for _, row in read(tmp_path, "x.jsonl", max_record_mib=1)] == [False, True, False]


def test_csv_record_without_end_reported_with_first_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('q\nfine\n"' + "a line\n" * 200_000)
    with pytest.raises(DataError, match=r"x\.csv, line 3: .* MiB, more than .*; is one of its quotes never closed\?"):
        read(tmp_path, "x.csv", max_record_mib=1)


def test_text_file_over_limit_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "data/raw"
    folder.mkdir(parents=True)
    (folder / "long.txt").write_text("x" * 2**20 + "x")
    (folder / "nul.txt").write_bytes(b"ab\0")
    (folder / "x.jsonl").write_text('{"context_file": "long.txt"}\n{"context_file": "nul.txt"}\n')
    source = open_source(tmp_path, "data/raw/x.jsonl", key="k", pin_key="p", pin=None, max_record_mib=1)
    assert [str(row) for _, row in source.rows()] == [
        "context_file 'long.txt' has 1.0 MiB, more than prepare.max_record_mib (1)",
        "context_file 'nul.txt' has a NUL character (at character 2); remove it",
    ]


def test_row_with_thousands_of_columns_gives_short_reason(tmp_path: Path) -> None:
    from longreward.data.columns import ColumnsConfig, map_columns

    with pytest.raises(RowError) as caught:
        map_columns(ColumnsConfig(), {f"column {n}": "x" for n in range(5000)}, number=0)
    assert len(str(caught.value)) < 500
    assert "and 4980 more" in str(caught.value)


def test_files_written_by_pandas_read(tmp_path: Path) -> None:
    texts = ['A bridge,\n"red".', "它在北边。", "é"]
    frame = pandas.DataFrame({"idx": [1, 2, None], "query": texts, "answer": ["x", None, "z"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv.gz", encoding="utf-8-sig", lineterminator="\r\n")
    frame.to_json(tmp_path / "c.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "d.json", orient="records")
    frame.to_parquet(tmp_path / "e.parquet")
    for name in ("a.csv", "b.csv.gz", "c.jsonl", "d.json", "e.parquet"):
        rows = [row for _, row in read(tmp_path, name)]
        assert [row["query"] for row in rows] == texts
        assert [row["answer"] for row in rows] == ["x", None, "z"]
    assert [location.number for location, _ in read(tmp_path, "a.csv")] == [2, 4, 5]
