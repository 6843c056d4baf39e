"""Finding, reading and splitting documents; files/python_docx.docx was written by python-docx 1.2."""

import io
from pathlib import Path
from zipfile import ZipFile

import pytest
from make_pdf import make_pdf

from longreward.errors import ConfigError
from longreward.synthesis import file_readers
from longreward.synthesis.config import SynthesizeConfig
from longreward.synthesis.documents import Document, find_documents, read_documents, split_document
from longreward.synthesis.file_readers import UnreadableFileError, read_text
from longreward.synthesis.records import Context, Dropped
from longreward.utils.token_spans import SimpleTokenizer

PAGE = b"""<!doctype html><html><head><meta charset="gb2312"><title>A page</title><style>p {}</style></head>
<body><nav><a href="/">Home</a></nav><!-- a remark --><h1>The  mill</h1>
<p>It <b>burned</b> down
in 1931,<br>and was <i>rebuilt</i>.</p><script>var x = "<p>no</p>";</script>
<table><tr><td>Year</td><td>Sacks</td></tr><tr><td>1930</td><td>400</td></tr></table>
<pre>a
  b</pre><p>&lt;tag&gt; &amp; \xc4\xa5\xb7\xbb</p></body></html>"""


def test_html_page_is_visible_text() -> None:
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


def test_form_controls_removed() -> None:
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
def test_page_title_added_unless_heading_contains_it(title: bytes, first: str) -> None:
    text = read_text(FORM % title, ".html")
    assert text.startswith(first)
    assert text.count("mill") == 1


def test_page_without_text_is_empty() -> None:
    page = b"<head><title>App</title></head><body><svg><title>Icon</title></svg><script>run()</script></body>"
    assert read_text(page, ".html") == ""
    assert read_text(b"<svg><title>Icon</title></svg><p>Text.</p>", ".html") == "Text."


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", compression=8) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_docx_of_python_docx_read_with_tables() -> None:
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


def test_docx_content_controls_and_tracked_changes() -> None:
    pytest.importorskip("mammoth", reason="pip install 'longreward[documents]'")
    run = "<w:r><w:t>{}</w:t></w:r>".format
    body = (
        f"<w:sdt><w:sdtContent><w:p>{run('In a control.')}</w:p></w:sdtContent></w:sdt>"
        f"<w:p>{run('Kept, ')}<w:ins>{run('inserted')}</w:ins>"
        "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>"
    )
    assert read_text(word(body), ".docx") == "In a control.\n\nKept, inserted"


def test_damaged_locked_or_too_large_docx(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mammoth", reason="pip install 'longreward[documents]'")
    with pytest.raises(UnreadableFileError, match=r"the \.docx file cannot be read \(BadZipFile"):
        read_text(b"PK nothing more", ".docx")
    with pytest.raises(UnreadableFileError, match="locked with a password"):
        read_text(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".docx")
    with pytest.raises(UnreadableFileError, match=r"the \.docx file cannot be read \("):
        read_text(zipped({"other.txt": "x"}), ".docx")
    monkeypatch.setattr(file_readers, "MAX_UNPACKED_BYTES", 1000)
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


def test_epub_is_title_and_pages_in_reading_order() -> None:
    assert read_text(zipped(BOOK), ".epub") == (
        "Two mills\n\nFirst\n\nIt burned & fell.\n\nLater\n\nTom Ray rebuilt it.\n\nThe end."
    )
    images = {name: "<body><img/></body>" if name.endswith(".xhtml") else text for name, text in BOOK.items()}
    assert read_text(zipped(images), ".epub") == ""


def test_encrypted_and_empty_epubs() -> None:
    def encrypted(name: str) -> str:
        reference = f'<CipherReference URI="{name}"/>'
        return f'<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">{reference}</encryption>'

    with pytest.raises(UnreadableFileError, match="copy protection"):
        read_text(zipped(BOOK | {"META-INF/encryption.xml": encrypted("OEBPS/m.xhtml")}), ".epub")
    fonts = zipped(BOOK | {"META-INF/encryption.xml": encrypted("OEBPS/font.otf")})
    assert read_text(fonts, ".epub") == read_text(zipped(BOOK), ".epub")
    no_pages = {name: text for name, text in BOOK.items() if not name.endswith(".xhtml")}
    with pytest.raises(UnreadableFileError, match="lists no page that is in it"):
        read_text(zipped(no_pages), ".epub")
    with pytest.raises(UnreadableFileError, match=r"the \.epub file cannot be read \(KeyError"):
        read_text(zipped({"a.txt": ""}), ".epub")


def test_surrogate_halves_joined_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pypdf returns them: with both halves in the table of the font, or only one."""
    monkeypatch.setattr(file_readers, "READERS", {".pdf": lambda data: "a\ud835\udc00b \ud835 c\udc00d"})
    assert read_text(b"", ".pdf") == "a\U0001d400b \ufffd c\ufffdd"


def test_pdf_pages_separated_by_blank_lines() -> None:
    data = make_pdf(["The mill burned down", "in 1931."], ["Tom Ray rebuilt it."])
    assert read_text(data, ".pdf") == "The mill burned down\nin 1931.\n\nTom Ray rebuilt it."


def test_damaged_and_locked_pdfs() -> None:
    from pypdf import PdfReader, PdfWriter

    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read_text(b"%PDF-1.4\nnothing more", ".pdf")
    locked, file = PdfWriter(clone_from=PdfReader(io.BytesIO(make_pdf(["secret"])))), io.BytesIO()
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
def test_plain_text_and_markdown_kept(data: bytes, text: str) -> None:
    assert read_text(data, ".md") == text


def test_text_in_another_encoding_is_unreadable() -> None:
    with pytest.raises(UnreadableFileError, match=r"not UTF-8 text \(at byte 5\)"):
        read_text(b"caf\xc3\xa9\xff", ".txt")


async def test_read_documents_in_order_and_drop_with_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "raw" / "docs"
    (folder / "old").mkdir(parents=True)
    (folder / "b.txt").write_text("The mill burned down.")
    (folder / "c.md").write_text("The  mill\nburned down.")
    (folder / "old" / "A.PDF").write_bytes(make_pdf([]))
    (folder / "old" / "z.html").write_text("<p>Tom Ray rebuilt it.</p>")
    (folder / "d.txt").write_bytes(b"\xff")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    outcomes = [outcome async for outcome in read_documents(tmp_path, find_documents(tmp_path, "data/raw/docs"))]
    assert outcomes == [
        Document("docs/b.txt", "The mill burned down."),
        Dropped("docs/c.md", "duplicate_document", "the same words as docs/b.txt"),
        Dropped("docs/d.txt", "unreadable_document", "not UTF-8 text (at byte 0); save it as UTF-8"),
        Dropped("docs/old/A.PDF", "empty_document", "no text in it; is it a scan?"),
        Document("docs/old/z.html", "Tom Ray rebuilt it."),
    ]


def test_find_documents(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "raw"
    folder.mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.csv"):
        (folder / name).write_text("x")
    assert [file.name for file in find_documents(tmp_path, "data/raw/*.txt")] == ["a.txt", "b.txt"]
    assert [file.name for file in find_documents(tmp_path, "data/raw/a.txt")] == ["a.txt"]
    for name, message in {
        "data/other": r"outside data/raw",
        "data/raw/../x": r"outside data/raw",
        "data/raw/absent": "contains no file of the types .txt, .md",
        "data/raw/*.csv": "c.csv is none of .txt",
    }.items():
        with pytest.raises(ConfigError, match=message):
            find_documents(tmp_path, name)


def test_missing_library_named_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "a.pdf").write_bytes(make_pdf(["x"]))
    monkeypatch.setattr(file_readers, "find_spec", lambda name: None if name in ("pypdf", "mammoth") else object())
    with pytest.raises(ConfigError, match=r"pypdf is not installed: pip install 'longreward\[documents\]'"):
        find_documents(tmp_path, "data/raw")
    (tmp_path / "data" / "raw" / "a.pdf").rename(tmp_path / "data" / "raw" / "a.docx")
    with pytest.raises(ConfigError, match=r"holds \.docx files, and mammoth is not installed"):
        find_documents(tmp_path, "data/raw")


def split(text: str, **settings: int) -> list[Context | Dropped]:
    return list(split_document(Document("a.txt", text), SynthesizeConfig(**settings), SimpleTokenizer()))


def test_document_of_fitting_length_is_one_context() -> None:
    assert split("one two three", min_tokens=3, max_tokens=3) == [Context("a.txt", 0, "one two three", "en")]
    [dropped] = split("one two", min_tokens=3, max_tokens=3)
    assert isinstance(dropped, Dropped)
    assert (dropped.kind, dropped.reason) == ("short", "2 tokens; synthesize.min_tokens is 3")


def test_long_document_split_at_paragraphs_and_lines() -> None:
    text = "one two three.\n\nfour five sixteen\nseven ten two nine"
    parts = split(text, min_tokens=1, max_tokens=6)  # the stop is a token too
    assert [part.text for part in parts if isinstance(part, Context)] == [
        "one two three.",
        "four five sixteen",  # five tokens, since words have up to six letters; two more fit, but not the whole line
        "seven ten two nine",
    ]
    assert [part.part for part in parts] == [0, 1, 2]


def test_parts_have_language_of_document() -> None:
    text = "克尔德村由李安建立。" * 6 + "\n\n" + "one two three four five six"
    parts = split(text, min_tokens=1, max_tokens=60)
    assert {part.language for part in parts if isinstance(part, Context)} == {"zh"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": {}}, "must request 1 to 50"),
        ({"questions": {"general": 0}}, "must request 1 to 50"),
        ({"questions": {"general": 51}}, "must request 1 to 50"),
        ({"questions": {"summary": 1}, "answer_words": {"general": 9}}, "length of answers of summary"),
        ({"min_tokens": 9, "max_tokens": 8}, r"min_tokens \(9\) is more than max_tokens \(8\)"),
        ({"questions": {"riddle": 1}}, "riddle"),
    ],
)
def test_invalid_settings_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SynthesizeConfig.parse(settings, source="test")
