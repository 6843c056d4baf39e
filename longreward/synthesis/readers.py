"""The text of a file of each kind: plain text and Markdown as they are, web pages and PDFs through their libraries."""

import io
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from longreward.errors import ConfigError


class Unreadable(Exception):
    """A file of a known kind has no text that could be read; the text says why."""


def read_text(data: bytes, suffix: str) -> str:
    """The text of a file's bytes, its lines without spaces at their ends and no more than one blank line between.

    `suffix` is one of READERS. Raises Unreadable for a damaged file, ConfigError where the library is not installed.
    """
    check_readers([suffix])
    text = READERS[suffix](data).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def check_readers(suffixes: list[str]) -> None:
    """Raises ConfigError where a file of one of these kinds is there and its library is not."""
    for suffix in suffixes:
        module = NEEDED.get(suffix)
        if module is not None and find_spec(module) is None:
            raise ConfigError(
                f"synthesize.documents holds {suffix} files, and {module} is not installed: "
                "pip install 'longreward[documents]', or leave them out with a glob such as data/raw/documents/*.txt"
            )


def _plain(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"not {encoding.removesuffix('-sig').upper()} text (at byte {error.start:,}); save it as UTF-8"
        ) from None


def _html(data: bytes) -> str:
    """What a reader of the page sees of its text: one line a block, nothing of scripts, styles and navigation."""
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString, PreformattedString

    page = BeautifulSoup(data, "html.parser")
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

    try:
        file = PdfReader(io.BytesIO(data))
        if file.is_encrypted and not file.decrypt(""):
            raise Unreadable("the PDF is locked with a password; save it without one")
        return "\n\n".join(page.extract_text() for page in file.pages)
    except Unreadable:
        raise
    except Exception as error:  # a damaged PDF raises whatever its contents led to
        raise Unreadable(f"the PDF cannot be read ({type(error).__name__}: {error}); save it anew") from error


READERS: Mapping[str, Callable[[bytes], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".markdown": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
NEEDED = {".html": "bs4", ".htm": "bs4", ".pdf": "pypdf"}
UNSEEN = ["script", "style", "noscript", "template", "head", "nav", "form", "iframe", "svg"]
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
BLANK_LINES = re.compile(r"\n{3,}")
