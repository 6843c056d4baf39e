"""Documents of each kind, found and read."""

import io
from pathlib import Path

import pytest
from pdfs import pdf

from longreward.errors import ConfigError
from longreward.synthesis import readers
from longreward.synthesis.documents import Document, find_documents, read_documents
from longreward.synthesis.readers import Unreadable, read_text
from longreward.synthesis.records import Dropped

PAGE = b"""<!doctype html><html><head><meta charset="gb2312"><title>Not text</title><style>p {}</style></head>
<body><nav><a href="/">Home</a></nav><!-- a remark --><h1>The  mill</h1>
<p>It <b>burned</b> down
in 1931,<br>and was <i>rebuilt</i>.</p><script>var x = "<p>no</p>";</script>
<table><tr><td>Year</td><td>Sacks</td></tr><tr><td>1930</td><td>400</td></tr></table>
<pre>a
  b</pre><p>&lt;tag&gt; &amp; \xc4\xa5\xb7\xbb</p></body></html>"""


def test_a_web_page_is_what_its_reader_sees_a_line_a_block() -> None:
    lines = [line for line in read_text(PAGE, ".html").split("\n") if line]
    assert lines == [
        "The mill",
        "It burned down in 1931,",
        "and was rebuilt.",
        "Year Sacks",
        "1930 400",
        "a",
        "b",
        "<tag> & 磨坊",  # in the encoding that the page names
    ]


def test_a_pdf_is_its_pages_with_a_blank_line_between() -> None:
    made = pdf(["The mill burned down", "in 1931."], ["Tom Ray rebuilt it."])
    assert read_text(made, ".pdf") == "The mill burned down\nin 1931.\n\nTom Ray rebuilt it."


def test_a_damaged_and_a_locked_pdf_say_what_is_wrong() -> None:
    from pypdf import PdfReader, PdfWriter

    with pytest.raises(Unreadable, match="cannot be read"):
        read_text(b"%PDF-1.4\nnothing more", ".pdf")
    locked, file = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["secret"])))), io.BytesIO()
    locked.encrypt("word", algorithm="RC4-128")
    locked.write(file)
    with pytest.raises(Unreadable, match="locked with a password"):
        read_text(file.getvalue(), ".pdf")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfa\r\nb  \r\n\r\n\r\n\r\nc", "a\nb\n\nc"),
        ("磨坊".encode("utf-16"), "磨坊"),
        (b"# Title\n\n- *a*\n- b\n", "# Title\n\n- *a*\n- b"),
    ],
)
def test_plain_text_and_markdown_stay_as_they_are_but_for_spaces_at_ends(data: bytes, text: str) -> None:
    assert read_text(data, ".md") == text


def test_text_in_another_encoding_is_unreadable_and_the_place_is_named() -> None:
    with pytest.raises(Unreadable, match=r"not UTF-8 text \(at byte 5\)"):
        read_text(b"caf\xc3\xa9\xff", ".txt")


async def test_files_come_in_order_and_what_holds_nothing_new_is_dropped_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "raw" / "docs"
    (folder / "old").mkdir(parents=True)
    (folder / "b.txt").write_text("The mill burned down.")
    (folder / "c.md").write_text("The  mill\nburned down.")
    (folder / "old" / "A.PDF").write_bytes(pdf([]))
    (folder / "old" / "z.html").write_text("<p>Tom Ray rebuilt it.</p>")
    (folder / "d.txt").write_bytes(b"\xff")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    found = [one async for one in read_documents(tmp_path, find_documents(tmp_path, "data/raw/docs"))]
    assert found == [
        Document("docs/b.txt", "The mill burned down."),
        Dropped("docs/c.md", "duplicate_document", "the same words as docs/b.txt"),
        Dropped("docs/d.txt", "unreadable_document", "not UTF-8 text (at byte 0); save it as UTF-8"),
        Dropped("docs/old/A.PDF", "empty_document", "no text in it; is it a scan?"),
        Document("docs/old/z.html", "Tom Ray rebuilt it."),
    ]


def test_a_glob_and_a_single_file_are_found_and_other_places_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "raw"
    folder.mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.csv"):
        (folder / name).write_text("x")
    assert [file.name for file in find_documents(tmp_path, "data/raw/*.txt")] == ["a.txt", "b.txt"]
    assert [file.name for file in find_documents(tmp_path, "data/raw/a.txt")] == ["a.txt"]
    for name, message in {
        "data/other": r"outside data/raw",
        "data/raw/../x": r"outside data/raw",
        "data/raw/absent": "holds no file of the kinds .txt, .md",
        "data/raw/*.csv": "c.csv is none of .txt",
    }.items():
        with pytest.raises(ConfigError, match=message):
            find_documents(tmp_path, name)


def test_a_missing_library_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "a.pdf").write_bytes(pdf(["x"]))
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pypdf is not installed: pip install 'longreward\[documents\]'"):
        find_documents(tmp_path, "data/raw")
