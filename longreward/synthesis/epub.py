"""The text of an EPUB: a zip file of web pages, whose order one of its files, the package document, gives.

https://www.w3.org/TR/epub-33/: META-INF/container.xml names the package document, whose `spine` lists the pages.
"""

import io
import posixpath
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from longreward.synthesis.readers import Unreadable, check_size, page_text


def epub_text(data: bytes) -> str:
    """The book's title and its pages in reading order, without the table of contents.

    Raises Unreadable for a book with copy protection, and where no page of the reading order is there.
    """
    from bs4 import BeautifulSoup

    check_size(data)
    with ZipFile(io.BytesIO(data)) as archive:
        container = _parsed(archive, "META-INF/container.xml")
        root = next(container.iterfind(".//{*}rootfile")).attrib["full-path"]
        package = _parsed(archive, root)
        names = set(archive.namelist())
        locked = _encrypted(archive) if "META-INF/encryption.xml" in names else set()
        texts = [_title(package)]
        for page in _pages(package, posixpath.dirname(root)):
            if page in locked:
                raise Unreadable("the book has copy protection (its pages are encrypted)")
            if page in names:
                texts.append(page_text(BeautifulSoup(archive.read(page), "html.parser")).strip())
    if len(texts) == 1:
        raise Unreadable("the book lists no page that is in it")
    # Without text in its pages (a comic of images), the title alone is no document.
    return "\n\n".join(text for text in texts if text) if any(texts[1:]) else ""


def _parsed(archive: ZipFile, name: str) -> ElementTree.Element:
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
    references = _parsed(archive, "META-INF/encryption.xml").iterfind(".//{*}CipherReference")
    return {unquote(reference.get("URI", "")) for reference in references}
