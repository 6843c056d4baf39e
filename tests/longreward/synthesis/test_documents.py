"""Documents of each kind, found and read; files/python_docx.docx was written by python-docx 1.2."""

import io
from pathlib import Path
from zipfile import ZipFile

import pytest
from pdfs import pdf

from longreward.errors import ConfigError
from longreward.synthesis import file_readers
from longreward.synthesis.documents import Document, find_documents, read_documents
from longreward.synthesis.file_readers import UnreadableFileError, read_text
from longreward.synthesis.records import Dropped

PAGE = b"""<!doctype html><html><head><meta charset="gb2312"><title>A page</title><style>p {}</style></head>
<body><nav><a href="/">Home</a></nav><!-- a remark --><h1>The  mill</h1>
<p>It <b>burned</b> down
in 1931,<br>and was <i>rebuilt</i>.</p><script>var x = "<p>no</p>";</script>
<table><tr><td>Year</td><td>Sacks</td></tr><tr><td>1930</td><td>400</td></tr></table>
<pre>a
  b</pre><p>&lt;tag&gt; &amp; \xc4\xa5\xb7\xbb</p></body></html>"""


def test_a_web_page_is_what_its_reader_sees_a_line_a_block() -> None:
    lines = [line for line in read_text(PAGE, ".html").split("\n") if line]
    assert lines == [
        "A page",  # its title, which the heading does not have
        "The mill",
        "It burned down in 1931,",
        "and was rebuilt.",
        "Year Sacks",
        "1930 400",
        "a",
        "b",
        "<tag> & 磨坊",  # in the encoding that the page names
    ]


FORM = b"""<html><head><title>%s</title></head><body><form method="post"><input type="hidden" value="no">
<h1>The mill</h1><label>Search</label><select><option>Town</option></select><button>Go</button>
<p>It burned down in 1931.</p><textarea>no</textarea></form></body></html>"""


def test_a_page_whose_body_is_a_form_keeps_its_text_and_loses_the_controls() -> None:
    assert read_text(FORM % b"", ".html") == "The mill\n\nIt burned down in 1931."


@pytest.mark.parametrize(
    ("title", "first"),
    [
        (b"The mill", "The mill\n"),
        (b" The  mill | Town archive", "The mill\n"),  # the heading has it already
        (b"Fires of 1931", "Fires of 1931\n\nThe mill\n"),
        (b"A &amp; B", "A & B\n\nThe mill\n"),
    ],
)
def test_a_page_s_title_is_its_first_line_unless_a_heading_has_it(title: bytes, first: str) -> None:
    text = read_text(FORM % title, ".html")
    assert text.startswith(first)
    assert text.count("mill") == 1


def test_a_page_without_text_is_empty_whatever_its_title() -> None:
    page = b"<head><title>App</title></head><body><svg><title>Icon</title></svg><script>run()</script></body>"
    assert read_text(page, ".html") == ""
    assert read_text(b"<svg><title>Icon</title></svg><p>Text.</p>", ".html") == "Text."


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", compression=8) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_word_document_of_another_program_is_read_with_its_tables() -> None:
    pytest.importorskip("mammoth", reason="pip install 'longreward[documents]'")
    text = read_text((Path(__file__).parent / "files" / "python_docx.docx").read_bytes(), ".docx")
    assert [line for line in text.split("\n") if line] == [
        "The mill",
        "It burned down in 1931, and was rebuilt.",
        "Tom Ray",
        "Ada Lin",
        "Year Sacks",
        "1930 400",
        "磨坊在北边。",
    ]


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"


def word(body: str) -> bytes:
    main = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    return zipped(
        {
            "_rels/.rels": f'<Relationships xmlns="{RELATIONS}">'
            f'<Relationship Id="r1" Type="{main}" Target="word/document.xml"/></Relationships>',
            "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
        }
    )


def test_content_controls_and_tracked_changes_of_a_word_document_are_read_as_they_look() -> None:
    pytest.importorskip("mammoth", reason="pip install 'longreward[documents]'")
    run = "<w:r><w:t>{}</w:t></w:r>".format
    body = (
        f"<w:sdt><w:sdtContent><w:p>{run('In a control.')}</w:p></w:sdtContent></w:sdt>"
        f"<w:p>{run('Kept, ')}<w:ins>{run('inserted')}</w:ins>"
        "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>"
    )
    assert read_text(word(body), ".docx") == "In a control.\n\nKept, inserted"


def test_a_damaged_locked_or_bloated_word_document_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mammoth", reason="pip install 'longreward[documents]'")
    with pytest.raises(UnreadableFileError, match=r"the \.docx file cannot be read \(BadZipFile"):
        read_text(b"PK nothing more", ".docx")
    with pytest.raises(UnreadableFileError, match="locked with a password"):
        read_text(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".docx")
    with pytest.raises(UnreadableFileError, match=r"the \.docx file cannot be read \("):
        read_text(zipped({"other.txt": "x"}), ".docx")
    monkeypatch.setattr(file_readers, "LARGEST_UNPACKED", 1000)
    with pytest.raises(UnreadableFileError, match="unpacked, more than"):
        read_text(word("<w:p/>" * 500), ".docx")


CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Two  mills</dc:title></metadata>
<manifest><item id="a" href="a.xhtml"/><item id="nav" href="nav.xhtml" properties="nav"/>
<item id="z" href="parts/z%20last.xhtml"/><item id="m" href="m.xhtml"/></manifest>
<spine><itemref idref="nav"/><itemref idref="z"/><itemref idref="a"/><itemref idref="m"/></spine></package>"""
BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "OEBPS/book.opf": PACKAGE,
    "OEBPS/nav.xhtml": "<body><p>Contents</p></body>",
    "OEBPS/a.xhtml": "<head><title>Two mills</title></head><body><h1>Later</h1><p>Tom Ray rebuilt it.</p></body>",
    "OEBPS/parts/z last.xhtml": "<body><h1>First</h1><p>It burned &amp; fell.</p></body>",
    "OEBPS/m.xhtml": "<body><p>The end.</p></body>",
}


def test_a_book_is_its_title_and_its_pages_in_reading_order() -> None:
    assert read_text(zipped(BOOK), ".epub") == (
        "Two mills\n\nFirst\n\nIt burned & fell.\n\nLater\n\nTom Ray rebuilt it.\n\nThe end."
    )
    images = {name: "<body><img/></body>" if name.endswith(".xhtml") else text for name, text in BOOK.items()}
    assert read_text(zipped(images), ".epub") == ""


def test_a_book_with_copy_protection_or_without_pages_says_so_and_encrypted_fonts_do_not_matter() -> None:
    def encrypted(name: str) -> str:
        reference = f'<CipherReference URI="{name}"/>'
        return f'<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">{reference}</encryption>'

    with pytest.raises(UnreadableFileError, match="copy protection"):
        read_text(zipped(BOOK | {"META-INF/encryption.xml": encrypted("OEBPS/m.xhtml")}), ".epub")
    fonts = zipped(BOOK | {"META-INF/encryption.xml": encrypted("OEBPS/font.otf")})
    assert read_text(fonts, ".epub") == read_text(zipped(BOOK), ".epub")
    without = {name: text for name, text in BOOK.items() if not name.endswith(".xhtml")}
    with pytest.raises(UnreadableFileError, match="lists no page that is in it"):
        read_text(zipped(without), ".epub")
    with pytest.raises(UnreadableFileError, match=r"the \.epub file cannot be read \(KeyError"):
        read_text(zipped({"a.txt": ""}), ".epub")


def test_halves_of_surrogate_pairs_are_joined_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pypdf gives them: where a font's table names the halves, and where it names one of them alone."""
    monkeypatch.setattr(file_readers, "READERS", {".pdf": lambda data: "a\ud835\udc00b \ud835 c\udc00d"})
    assert read_text(b"", ".pdf") == "a\U0001d400b \ufffd c\ufffdd"


def test_a_pdf_is_its_pages_with_a_blank_line_between() -> None:
    made = pdf(["The mill burned down", "in 1931."], ["Tom Ray rebuilt it."])
    assert read_text(made, ".pdf") == "The mill burned down\nin 1931.\n\nTom Ray rebuilt it."


def test_a_damaged_and_a_locked_pdf_say_what_is_wrong() -> None:
    from pypdf import PdfReader, PdfWriter

    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read_text(b"%PDF-1.4\nnothing more", ".pdf")
    locked, file = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["secret"])))), io.BytesIO()
    locked.encrypt("word", algorithm="RC4-128")
    locked.write(file)
    with pytest.raises(UnreadableFileError, match="locked with a password"):
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
    with pytest.raises(UnreadableFileError, match=r"not UTF-8 text \(at byte 5\)"):
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
    monkeypatch.setattr(file_readers, "find_spec", lambda name: None if name in ("pypdf", "mammoth") else object())
    with pytest.raises(ConfigError, match=r"pypdf is not installed: pip install 'longreward\[documents\]'"):
        find_documents(tmp_path, "data/raw")
    (tmp_path / "data" / "raw" / "a.pdf").rename(tmp_path / "data" / "raw" / "a.docx")
    with pytest.raises(ConfigError, match=r"holds \.docx files, and mammoth is not installed"):
        find_documents(tmp_path, "data/raw")
