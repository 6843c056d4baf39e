"""The text of a file of each kind: plain text and Markdown as they are, all others through their libraries."""

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
    from bs4 import BeautifulSoup


class UnreadableFileError(Exception):
    """A file of a known kind has no text that could be read; the text says why."""


def read_text(data: bytes, suffix: str) -> str:
    """The text of a file's bytes, its lines without spaces at their ends and no more than one blank line between.

    `suffix` is one of READERS. Raises Unreadable for a damaged file, ConfigError where the library is not installed.
    """
    check_readers([suffix])
    try:
        text = READERS[suffix](data)
    except UnreadableFileError:
        raise
    except Exception as error:  # libraries raise whatever a damaged file led to, RecursionError included
        raise UnreadableFileError(
            f"the {suffix} file cannot be read ({type(error).__name__}: {str(error)[:200]}); save it anew"
        ) from error
    # Fonts of PDFs name halves of surrogate pairs; UTF-16 joins those that belong together.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def check_readers(suffixes: list[str]) -> None:
    """Raises ConfigError where a file of one of these kinds is there and its library is not."""
    for suffix in suffixes:
        for module in NEEDED.get(suffix, ()):
            if find_spec(module) is None:
                raise ConfigError(
                    f"synthesize.documents holds {suffix} files, and {module} is not installed: pip install "
                    "'longreward[documents]', or leave them out with a glob such as data/raw/documents/*.txt"
                )


def _plain(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableFileError(
            f"not {encoding.removesuffix('-sig').upper()} text (at byte {error.start:,}); save it as UTF-8"
        ) from None


def _html(data: bytes) -> str:
    """What a reader of the page sees of its text, one line a block, under the page's title where no heading has it."""
    page = _parse_html(data)
    title = next((" ".join(tag.get_text().split()) for tag in page.find_all("title") if not tag.find_parent("svg")), "")
    headings = [" ".join(tag.get_text().split()) for tag in page.find_all("h1")]
    text = page_text(page)
    has_title = any(heading and (heading in title or title in heading) for heading in headings)
    if not title or has_title or not text.strip() or text.strip().startswith(title):
        return text
    return f"{title}\n\n{text}"


def _parse_html(markup: bytes | str) -> "BeautifulSoup":
    from bs4 import BeautifulSoup

    return BeautifulSoup(markup, "html.parser")


def page_text(page: "BeautifulSoup") -> str:
    """The text of a parsed page, which is changed: nothing of scripts, styles, navigation and the controls of forms.

    What stands in a form beside its controls is kept: whole pages are a form (ASP.NET Web Forms).
    """
    from bs4.element import NavigableString, PreformattedString

    for tag in page.find_all(UNSEEN):
        tag.decompose()
    for string in page.find_all(string=True):
        if isinstance(string, PreformattedString):  # comments, the doctype
            string.extract()
        elif string.find_parent("pre") is None:
            string.replace_with(NavigableString(SPACES.sub(" ", string)))
    for tag in page.find_all(BLOCKS):
        tag.insert_before("\n")
        tag.insert_after("\n")
    for tag in page.find_all(["br", "td", "th"]):
        tag.insert_after("\n" if tag.name == "br" else " ")
    return "\n".join(line.strip() for line in page.get_text().split("\n"))


def _pdf(data: bytes) -> str:
    """The text of all pages, a blank line between two."""
    from pypdf import PdfReader

    file = PdfReader(io.BytesIO(data))
    if file.is_encrypted and not file.decrypt(""):
        raise UnreadableFileError("the PDF is locked with a password; save it without one")
    return "\n\n".join(page.extract_text() for page in file.pages)


def _docx(data: bytes) -> str:
    """The text of a Word document, with its tables, text boxes and notes, without headers, footers and comments.

    mammoth turns the document into a page: it knows tracked changes and content controls, whose text python-docx
    leaves out.
    """
    import mammoth

    if data.startswith(OLE):
        raise UnreadableFileError(
            "the document is locked with a password, or a .doc of Word 97; save it as .docx without one"
        )
    check_size(data)
    no_image = mammoth.images.img_element(lambda image: {"src": ""})
    page = _parse_html(mammoth.convert_to_html(io.BytesIO(data), convert_image=no_image).value)
    for link in page.find_all("a", href=NOTE_LINK):
        link.decompose()  # the arrow from a note back to its place
    for cell in page.find_all(["td", "th"]):
        if len(paragraphs := cell.find_all("p")) == 1:
            paragraphs[0].unwrap()  # a row of a table is a line
    return page_text(page)


def _epub(data: bytes) -> str:

    return epub_text(data)


def check_size(data: bytes) -> None:
    """Raises Unreadable for a zip file that is very large once unpacked: a few kilobytes can hold gigabytes."""
    from zipfile import ZipFile

    with ZipFile(io.BytesIO(data)) as archive:
        size = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(ZIPPED_TEXTS))
    if size > LARGEST_UNPACKED:
        raise UnreadableFileError(
            f"its texts have {size / 2**20:,.0f} MiB unpacked, more than {LARGEST_UNPACKED / 2**20:,.0f}"
        )


READERS: Mapping[str, Callable[[bytes], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".markdown": _plain,
    ".html": _html,
    ".htm": _html,
    ".xhtml": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".epub": _epub,
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    ".html": ("bs4",),
    ".htm": ("bs4",),
    ".xhtml": ("bs4",),
    ".pdf": ("pypdf",),
    ".docx": ("mammoth", "bs4"),
    ".epub": ("bs4",),
}
CONTROLS = ["button", "select", "textarea", "datalist", "label"]
UNSEEN = ["script", "style", "noscript", "template", "head", "nav", "iframe", "svg", *CONTROLS]
BLOCKS = [
    *("address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figcaption", "figure", "footer"),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tr",
        "ul",
    ),
]
SPACES = re.compile(r"\s+")
NOTE_LINK = re.compile(r"^#(foot|end)note-ref-")
OLE = b"\xd0\xcf\x11\xe0"  # the container of Word 97 and of encrypted documents
ZIPPED_TEXTS = (".xml", ".rels", ".html", ".htm", ".xhtml", ".opf", ".ncx")
LARGEST_UNPACKED = 256 * 2**20  # bytes; the text of a very long book has about 10 MB
BLANK_LINES = re.compile(r"\n{3,}")


# The text of an EPUB: a zip file of web pages, whose order one of its files, the package document, gives.
#
# https://www.w3.org/TR/epub-33/: META-INF/container.xml names the package document, whose `spine` lists the pages.


def epub_text(data: bytes) -> str:
    """The book's title and its pages in reading order, without the table of contents.

    Raises Unreadable for a book with copy protection, and where no page of the reading order is there.
    """
    from bs4 import BeautifulSoup

    check_size(data)
    with ZipFile(io.BytesIO(data)) as archive:
        container = _parse_xml(archive, "META-INF/container.xml")
        root = next(container.iterfind(".//{*}rootfile")).attrib["full-path"]
        package = _parse_xml(archive, root)
        names = set(archive.namelist())
        locked = _encrypted(archive) if "META-INF/encryption.xml" in names else set()
        texts = [_title(package)]
        for page in _pages(package, posixpath.dirname(root)):
            if page in locked:
                raise UnreadableFileError("the book has copy protection (its pages are encrypted)")
            if page in names:
                texts.append(page_text(BeautifulSoup(archive.read(page), "html.parser")).strip())
    if len(texts) == 1:
        raise UnreadableFileError("the book lists no page that is in it")
    # Without text in its pages (a comic of images), the title alone is no document.
    return "\n\n".join(text for text in texts if text) if any(texts[1:]) else ""


def _parse_xml(archive: ZipFile, name: str) -> ElementTree.Element:
    # expat, from 2.4.1 on, limits how much entities may grow; external ones are not read
    return ElementTree.fromstring(archive.read(name))


def _title(package: ElementTree.Element) -> str:
    title = next(package.iterfind(".//{http://purl.org/dc/elements/1.1/}title"), None)
    return "" if title is None else " ".join("".join(title.itertext()).split())


def _pages(package: ElementTree.Element, folder: str) -> list[str]:
    """The names of the pages in the archive, in reading order."""
    items = {item.get("id"): item for item in package.iterfind(".//{*}manifest/{*}item")}
    pages = []
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "nav" not in item.get("properties", "").split():
            pages.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    return pages


def _encrypted(archive: ZipFile) -> set[str]:
    """The names of the encrypted files: all of them with copy protection, else fonts at most."""
    references = _parse_xml(archive, "META-INF/encryption.xml").iterfind(".//{*}CipherReference")
    return {unquote(reference.get("URI", "")) for reference in references}
