"""The text of a file: plain text and Markdown unchanged, HTML, PDF, Word and EPUB through their libraries."""

import io
import posixpath
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from longreward.errors import ConfigError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

# HTML elements that a reader of the page does not see as text, and those that start a new line.
FORM_CONTROLS = ["button", "select", "textarea", "datalist", "label"]
HIDDEN_TAGS = ["script", "style", "noscript", "template", "head", "nav", "iframe", "svg", *FORM_CONTROLS]
BLOCK_TAGS = [
    *("address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figcaption", "figure", "footer"),
    *("header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul"),
    *(f"h{level}" for level in range(1, 7)),
]
SPACES = re.compile(r"\s+")
BLANK_LINES = re.compile(r"\n{3,}")
NOTE_BACKLINK = re.compile(r"^#(foot|end)note-ref-")

OLE_SIGNATURE = b"\xd0\xcf\x11\xe0"  # the container format of Word 97 and of encrypted documents
ZIPPED_TEXT_SUFFIXES = (".xml", ".rels", ".html", ".htm", ".xhtml", ".opf", ".ncx")
MAX_UNPACKED_BYTES = 256 * 2**20  # the text of a very long book has about 10 MB


class UnreadableFileError(Exception):
    """A file of a supported type has no readable text; the message says why."""


def read_text(data: bytes, suffix: str) -> str:
    """Return the text of a file's bytes, without trailing spaces and with at most one blank line in a row.

    `suffix` is one of READERS. Raises UnreadableFileError for a damaged file, ConfigError if a library is missing.
    """
    check_readers([suffix])
    try:
        text = READERS[suffix](data)
    except UnreadableFileError:
        raise
    except Exception as error:  # on a damaged file libraries raise anything, RecursionError included
        raise UnreadableFileError(
            f"the {suffix} file cannot be read ({type(error).__name__}: {str(error)[:200]}); save it again"
        ) from error
    # Fonts of PDFs may map to halves of surrogate pairs. UTF-16 joins those that belong together.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def check_readers(suffixes: list[str]) -> None:
    """Raise ConfigError if the library for one of the file types is not installed."""
    for suffix in suffixes:
        for module in REQUIRED_MODULES.get(suffix, ()):
            if find_spec(module) is None:
                raise ConfigError(
                    f"synthesize.documents holds {suffix} files, and {module} is not installed: pip install "
                    "'longreward[documents]', or exclude them with a glob such as data/raw/documents/*.txt"
                )


def _read_plain(data: bytes) -> str:
    # Byte order marks of UTF-16, as Windows editors write them.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise UnreadableFileError(f"not {name} text (at byte {error.start:,}); save it as UTF-8") from None


# --- HTML -------------------------------------------------------------------------------------------------------------


def _read_html(data: bytes) -> str:
    """Return the visible text of a page, one line per block, after the page's title unless a heading contains it."""
    page = _parse_html(data)
    title = next((_inline_text(tag) for tag in page.find_all("title") if not tag.find_parent("svg")), "")
    headings = [_inline_text(tag) for tag in page.find_all("h1")]
    text = _page_text(page)
    # Titles often repeat the heading with the name of the site.
    has_title = any(heading and (heading in title or title in heading) for heading in headings)
    if not title or has_title or not text.strip() or text.strip().startswith(title):
        return text
    return f"{title}\n\n{text}"


def _parse_html(markup: bytes | str) -> "BeautifulSoup":
    from bs4 import BeautifulSoup

    return BeautifulSoup(markup, "html.parser")


def _inline_text(tag: "Tag") -> str:
    return " ".join(tag.get_text().split())


def _page_text(page: "BeautifulSoup") -> str:
    """Return the text of a parsed page, which is modified, without scripts, styles, navigation and form controls.

    Other text of a form is kept, because whole pages can be a form (ASP.NET Web Forms).
    """
    from bs4.element import NavigableString, PreformattedString

    for tag in page.find_all(HIDDEN_TAGS):
        tag.decompose()
    for string in page.find_all(string=True):
        if isinstance(string, PreformattedString):  # comments and the doctype
            string.extract()
        elif string.find_parent("pre") is None:
            string.replace_with(NavigableString(SPACES.sub(" ", string)))
    for tag in page.find_all(BLOCK_TAGS):
        tag.insert_before("\n")
        tag.insert_after("\n")
    for tag in page.find_all(["br", "td", "th"]):
        tag.insert_after("\n" if tag.name == "br" else " ")
    return "\n".join(line.strip() for line in page.get_text().split("\n"))


# --- PDF and Word -----------------------------------------------------------------------------------------------------


def _read_pdf(data: bytes) -> str:
    from pypdf import PdfReader

    file = PdfReader(io.BytesIO(data))
    # Many PDFs are encrypted with an empty password to forbid printing only.
    if file.is_encrypted and not file.decrypt(""):
        raise UnreadableFileError("the PDF is locked with a password; save it without one")
    return "\n\n".join(page.extract_text() for page in file.pages)


def _read_docx(data: bytes) -> str:
    """Return the text of a Word document with tables, text boxes and notes, without headers, footers and comments.

    mammoth converts the document to HTML. It supports tracked changes and content controls, which python-docx omits.
    """
    import mammoth

    if data.startswith(OLE_SIGNATURE):
        raise UnreadableFileError(
            "the document is locked with a password, or a .doc of Word 97; save it as .docx without one"
        )
    _check_unpacked_size(data)
    no_image = mammoth.images.img_element(lambda image: {"src": ""})
    page = _parse_html(mammoth.convert_to_html(io.BytesIO(data), convert_image=no_image).value)
    for link in page.find_all("a", href=NOTE_BACKLINK):
        link.decompose()  # the arrow from a note back to the text
    for cell in page.find_all(["td", "th"]):
        if len(paragraphs := cell.find_all("p")) == 1:
            paragraphs[0].unwrap()  # keeps a table row on one line
    return _page_text(page)


def _check_unpacked_size(data: bytes) -> None:
    """Raise UnreadableFileError for a zip bomb: a few kilobytes can unpack to gigabytes."""
    with ZipFile(io.BytesIO(data)) as archive:
        size = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(ZIPPED_TEXT_SUFFIXES))
    if size > MAX_UNPACKED_BYTES:
        raise UnreadableFileError(
            f"its texts have {size / 2**20:,.0f} MiB unpacked, more than {MAX_UNPACKED_BYTES / 2**20:,.0f}"
        )


# --- EPUB -------------------------------------------------------------------------------------------------------------


def _read_epub(data: bytes) -> str:
    """Return the book's title and its pages in reading order, without the table of contents.

    An EPUB (https://www.w3.org/TR/epub-33/) is a zip file of web pages. META-INF/container.xml names the package
    document, whose `spine` lists the pages. Raises UnreadableFileError if the book has copy protection or no page.
    """
    _check_unpacked_size(data)
    with ZipFile(io.BytesIO(data)) as archive:
        container = _parse_xml(archive, "META-INF/container.xml")
        package_name = next(container.iterfind(".//{*}rootfile")).attrib["full-path"]
        package = _parse_xml(archive, package_name)
        names = set(archive.namelist())
        encrypted = set()
        if "META-INF/encryption.xml" in names:
            # With copy protection all files are listed; otherwise at most fonts.
            references = _parse_xml(archive, "META-INF/encryption.xml").iterfind(".//{*}CipherReference")
            encrypted = {unquote(reference.get("URI", "")) for reference in references}
        pages = []
        for page in _reading_order(package, posixpath.dirname(package_name)):
            if page in encrypted:
                raise UnreadableFileError("the book has copy protection (its pages are encrypted)")
            if page in names:
                pages.append(_page_text(_parse_html(archive.read(page))).strip())
    if not pages:
        raise UnreadableFileError("the book lists no page that is in it")
    if not any(pages):  # for example a comic of images, whose title alone is no document
        return ""
    title = next(package.iterfind(".//{http://purl.org/dc/elements/1.1/}title"), None)
    title_text = "" if title is None else " ".join("".join(title.itertext()).split())
    return "\n\n".join(text for text in (title_text, *pages) if text)


def _parse_xml(archive: ZipFile, name: str) -> ElementTree.Element:
    # expat limits entity expansion from 2.4.1 on, and does not read external entities.
    return ElementTree.fromstring(archive.read(name))


def _reading_order(package: ElementTree.Element, folder: str) -> list[str]:
    """Return the names of the pages in the archive."""
    items = {item.get("id"): item for item in package.iterfind(".//{*}manifest/{*}item")}
    pages = []
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "nav" not in item.get("properties", "").split():
            pages.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    return pages


READERS: Mapping[str, Callable[[bytes], str]] = {
    ".txt": _read_plain,
    ".md": _read_plain,
    ".markdown": _read_plain,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
    ".pdf": _read_pdf,
    ".docx": _read_docx,
    ".epub": _read_epub,
}
REQUIRED_MODULES: Mapping[str, tuple[str, ...]] = {
    ".html": ("bs4",),
    ".htm": ("bs4",),
    ".xhtml": ("bs4",),
    ".pdf": ("pypdf",),
    ".docx": ("mammoth", "bs4"),
    ".epub": ("bs4",),
}
