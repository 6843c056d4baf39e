"""Rows that name the files of their texts."""

import json
from pathlib import Path
from typing import Any

import pytest

from longreward.data.open_source import open_source
from longreward.utils.jsonl import RowError


def read(root: Path, rows: list[dict[str, Any]], *, name: str = "data/raw/questions.jsonl") -> list[Any]:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = open_source(root, name, key="prepare.source", pin_key="prepare.checksum", pin=None)
    return [row for _, row in source.rows()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    texts = tmp_path / "data/raw/texts"
    texts.mkdir(parents=True)
    (texts / "fox.txt").write_text("\ufeffThe fox is red.\n", encoding="utf-8")
    (texts / "owl.txt").write_text("The owl is grey.\n", encoding="utf-8")
    (texts / "latin.txt").write_bytes("Der Bär".encode("latin-1"))
    return tmp_path


def test_a_row_gets_the_text_that_it_names_and_questions_on_one_text_are_one_document(root: Path) -> None:
    rows = [
        {"idx": n, "query": "?", "context_file": f"texts/{name}.txt"} for n, name in enumerate(("fox", "owl", "fox"))
    ]
    found = read(root, rows)
    assert [row["context"] for row in found] == ["The fox is red.\n", "The owl is grey.\n", "The fox is red.\n"]
    assert [row["document"] for row in found] == ["texts/fox.txt", "texts/owl.txt", "texts/fox.txt"]


def test_a_text_in_the_row_and_a_name_of_its_own_come_first(root: Path) -> None:
    own = {"idx": 0, "query": "?", "context": "Here.", "context_file": "texts/fox.txt"}
    named = {"idx": 1, "query": "?", "context_file": "texts/fox.txt", "document": "fox"}
    first, second = read(root, [own, named])
    assert (first["context"], "document" in first) == ("Here.", False)
    assert (second["context"], second["document"]) == ("The fox is red.\n", "fox")


def test_the_name_is_relative_to_the_file_that_holds_it(root: Path) -> None:
    (found,) = read(root, [{"idx": 0, "context_file": "../texts/owl.txt"}], name="data/raw/sets/a.jsonl")
    assert found["context"] == "The owl is grey.\n"


def test_a_source_of_texts_has_the_columns_that_they_fill(root: Path) -> None:
    read(root, [{"idx": 0, "query": "?", "context_file": "texts/fox.txt"}])
    source = open_source(root, "data/raw/questions.jsonl", key="prepare.source", pin_key="prepare.checksum", pin=None)
    assert source.columns() == ["idx", "query", "context_file", "context", "document"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("texts/hen.txt", "'texts/hen.txt' cannot be read: No such file"),
        ("texts", "Is a directory"),
        ("texts/latin.txt", "is not UTF-8 text (byte 0xe4 at 5)"),
        ("../../secret.txt", "outside data/raw"),
        ("/etc/hostname", "outside data/raw"),
        (7, "context_file is 7, expected the name"),
        ("", "expected the name"),
    ],
)
def test_a_text_that_cannot_be_had_is_a_bad_record_with_its_reason(root: Path, name: object, message: str) -> None:
    (found,) = read(root, [{"idx": 0, "query": "?", "context_file": name}])
    assert isinstance(found, RowError)
    assert message in str(found)
