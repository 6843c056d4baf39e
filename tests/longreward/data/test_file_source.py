import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from longreward.data.file_source import find_files
from longreward.data.open_source import open_source
from longreward.data.source import SourceLocation
from longreward.errors import DataError
from longreward.utils.jsonl import RowError

ROWS: list[dict[str, Any]] = [{"q": "When?", "n": 1}, {"q": "谁？", "n": 2}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def zstd(text: str) -> bytes:
    """Two frames, as `zstd a b` and parallel compressors write them."""
    codec, half = pa.Codec("zstd"), len(text) // 2
    return b"".join(codec.compress(part.encode(), asbytes=True) for part in (text[:half], text[half:]))


def read(root: Path, name: str) -> list[tuple[SourceLocation, Any]]:
    return list(find_files(root, name).rows())


def test_all_formats_give_same_records(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n" + LINES, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "g.ndjson").write_text(LINES)
    (tmp_path / "h.jsonl.zst").write_bytes(zstd(LINES))
    (tmp_path / "i.JSONL.GZ").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "j.json.zst").write_bytes(zstd(json.dumps(ROWS)))
    (tmp_path / "k.csv").write_text("q,n\nWhen?,1\n谁？,2\n", encoding="utf-8-sig")
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    (tmp_path / "d.json").write_text(json.dumps({"version": "1", "data": ROWS}))
    (tmp_path / "e.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "f.parquet", row_group_size=1)
    assert read(tmp_path, "a.jsonl") == [(("a.jsonl", "line", 2), ROWS[0]), (("a.jsonl", "line", 3), ROWS[1])]
    for name in ("b.jsonl.gz", "g.ndjson", "h.jsonl.zst", "i.JSONL.GZ"):
        assert read(tmp_path, name) == [((name, "line", 1), ROWS[0]), ((name, "line", 2), ROWS[1])]
    cells = [{"q": "When?", "n": "1"}, {"q": "谁？", "n": "2"}]  # a CSV knows no numbers
    assert read(tmp_path, "k.csv") == [(("k.csv", "line", 2), cells[0]), (("k.csv", "line", 3), cells[1])]
    for name in ("c.json", "d.json", "e.json.gz", "f.parquet", "j.json.zst"):
        assert read(tmp_path, name) == [((name, "row", 0), ROWS[0]), ((name, "row", 1), ROWS[1])]


def test_shards_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "x" / "deep").mkdir(parents=True)
    for name in ("x/2.jsonl", "x/1.jsonl", "x/deep/0.jsonl"):
        (tmp_path / name).write_text(json.dumps({"from": name}) + "\n")
    (tmp_path / "x" / "README.md").write_text("about them")
    assert [row["from"] for _, row in read(tmp_path, "x")] == ["x/1.jsonl", "x/2.jsonl"]
    assert [row["from"] for _, row in read(tmp_path, "x/**/*.jsonl")] == ["x/1.jsonl", "x/2.jsonl", "x/deep/0.jsonl"]


def test_existing_file_takes_precedence_over_glob(tmp_path: Path) -> None:
    (tmp_path / "x[1].jsonl").write_text(LINES)
    assert len(read(tmp_path, "x[1].jsonl")) == 2


def test_columns_come_from_schema_or_first_records(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    (tmp_path / "a.jsonl").write_text('broken\n{"q": 1}\n{"q": 2, "late": 3}\n')
    assert find_files(tmp_path, "f.parquet").columns() == ["q", "n"]
    assert find_files(tmp_path, "a.jsonl").columns() == ["q", "late"]


def test_item_other_than_object_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('[{"q": 1}, "text"]')
    (_, good), (location, bad) = read(tmp_path, "c.json")
    assert good == {"q": 1}
    assert str(location) == "c.json, row 1"
    assert isinstance(bad, RowError)
    assert str(bad) == "a JSON str, expected an object"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"q": 1}\n{"q": 2}', "name a file with one object per line .jsonl"),
        ("x.json", b'{"a": [1], "b": [2]}', r"an object with 2 lists \(a, b\); keep one"),
        ("x.json", b"3", "contains no list"),
        ("x.json", b"[]", "is empty"),
        ("x.parquet", b"PAR1 but not really", r"x\.parquet cannot be read as parquet"),
        ("x.jsonl.gz", b"not gzip", "Not a gzipped file"),
        ("x.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "end-of-stream"),
        ("x.csv", b"a,b", r"x\.csv is empty; expected a line of column names and at least one record"),
        ("x.csv", b"a;b\n1;2", "separated by semicolons; save it with commas"),
        ("x.csv", b"a,b,a\n1,2,3", "duplicate column names 'a'"),
        ("x.xlsx", b"PK", r"x\.xlsx is none of \.jsonl, \.ndjson, \.json, \.csv, each also with \.gz or \.zst, or"),
        ("x.jsonl.zst", b"not zstd", "ZSTD decompress failed"),
        ("x.jsonl.zst", zstd(LINES)[:-4], "Truncated compressed stream"),
    ],
)
def test_damaged_or_unsupported_file_is_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, name)
    assert name in str(caught.value)


def test_damaged_parquet_page_reported_with_row(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.Table.from_pylist([{"q": f"{n} " * 1000} for n in range(40)])
    parquet.write_table(table, path, row_group_size=20, compression="gzip", use_dictionary=False)
    content = path.read_bytes()
    page = parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    path.write_bytes(content[:page] + b"\xff" * 60 + content[page + 60 :])
    rows = find_files(tmp_path, "x.parquet").rows()
    assert next(rows)[1] == {"q": "0 " * 1000}
    with pytest.raises(DataError, match=r"x\.parquet, row \d+ or soon after it"):
        list(rows)


def test_missing_mixed_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.jsonl").write_text(LINES)
    (tmp_path / "mixed" / "b.json").write_text("[]")
    (tmp_path / "none" / "deep").mkdir(parents=True)
    with pytest.raises(DataError, match=r"y\.jsonl does not exist"):
        find_files(tmp_path, "y.jsonl")
    with pytest.raises(DataError, match=r"several formats \(a\.jsonl, b\.json\)"):
        find_files(tmp_path, "mixed")
    with pytest.raises(DataError, match=r"no file that can be read .* subfolders: none/\*\*/\*\.parquet"):
        find_files(tmp_path, "none")
    with pytest.raises(DataError, match="no file that can be read"):
        find_files(tmp_path, "mixed/*.parquet")


def test_too_large_json_file_is_error(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(600 * 2**20)  # sparse: it takes no room
    with pytest.raises(DataError, match=r"more than 512 MB.*jq -c '\.\[\]' x\.json > x\.jsonl"):
        read(tmp_path, "x.json")


def read_questions(root: Path, rows: list[dict[str, Any]], *, name: str = "data/raw/questions.jsonl") -> list[Any]:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = open_source(root, name, key="prepare.source", pin_key="prepare.checksum", pin=None)
    return [row for _, row in source.rows()]


@pytest.fixture
def texts_root(tmp_path: Path) -> Path:
    texts = tmp_path / "data/raw/texts"
    texts.mkdir(parents=True)
    (texts / "fox.txt").write_text("\ufeffThe fox is red.\n", encoding="utf-8")
    (texts / "owl.txt").write_text("The owl is grey.\n", encoding="utf-8")
    (texts / "latin.txt").write_bytes("Der Bär".encode("latin-1"))
    return tmp_path


def test_context_file_read_and_names_document(texts_root: Path) -> None:
    rows = [
        {"idx": n, "query": "?", "context_file": f"texts/{name}.txt"} for n, name in enumerate(("fox", "owl", "fox"))
    ]
    result = read_questions(texts_root, rows)
    assert [row["context"] for row in result] == ["The fox is red.\n", "The owl is grey.\n", "The fox is red.\n"]
    assert [row["document"] for row in result] == ["texts/fox.txt", "texts/owl.txt", "texts/fox.txt"]


def test_context_and_document_of_row_take_precedence(texts_root: Path) -> None:
    own = {"idx": 0, "query": "?", "context": "Here.", "context_file": "texts/fox.txt"}
    named = {"idx": 1, "query": "?", "context_file": "texts/fox.txt", "document": "fox"}
    first, second = read_questions(texts_root, [own, named])
    assert (first["context"], "document" in first) == ("Here.", False)
    assert (second["context"], second["document"]) == ("The fox is red.\n", "fox")


def test_context_file_relative_to_naming_file(texts_root: Path) -> None:
    (row,) = read_questions(texts_root, [{"idx": 0, "context_file": "../texts/owl.txt"}], name="data/raw/sets/a.jsonl")
    assert row["context"] == "The owl is grey.\n"


def test_context_files_add_columns(texts_root: Path) -> None:
    read_questions(texts_root, [{"idx": 0, "query": "?", "context_file": "texts/fox.txt"}])
    source = open_source(
        texts_root, "data/raw/questions.jsonl", key="prepare.source", pin_key="prepare.checksum", pin=None
    )
    assert source.columns() == ["idx", "query", "context_file", "context", "document"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("texts/hen.txt", "'texts/hen.txt' cannot be read: No such file"),
        ("texts", "Is a directory"),
        ("texts/latin.txt", "is not UTF-8 (byte 0xe4 at character 5)"),
        ("../../secret.txt", "outside data/raw"),
        ("/etc/hostname", "outside data/raw"),
        (7, "context_file is 7, expected the name"),
        ("", "expected the name"),
    ],
)
def test_unreadable_context_file_is_bad_record(texts_root: Path, name: object, message: str) -> None:
    (row,) = read_questions(texts_root, [{"idx": 0, "query": "?", "context_file": name}])
    assert isinstance(row, RowError)
    assert message in str(row)
