"""The evidence page as one HTML file that requests nothing: template, stylesheet, script and compressed data.

Every prompt and every document is a block: JSON, compressed with gzip, in base64. The browser decodes a block when it
shows the prompt, so that a page of 1,000 prompts opens as fast as one of ten. The index, with one row per prompt, is
decoded first.

No text of a record is in the HTML itself: base64 cannot close an element, and the script inserts texts as text nodes.
The Content-Security-Policy allows the one script and the one stylesheet by their hashes, and no request.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from longreward.inspection.entries import PromptEntry
from longreward.utils.jsonl import find_surrogate, open_atomic

FILES = Path(__file__).parent / "page_files"
COMPRESSION_LEVEL = 6  # 9 takes twice the time for 1 % less
CollectionKind = Literal["rewards", "comparison"]


@dataclass(frozen=True)
class Collection:
    """Entries that are listed together.

    `rewards`: the responses are ranked and left and right are a pair. `comparison`: left and right are two models.
    """

    name: str
    title: str
    kind: CollectionKind
    total: int | None = None
    """The number of prompts of the run, if the page shows some of them; None: all."""


@dataclass
class EvidencePage:
    """A page under construction, held in memory in compressed form.

    `storage_key` names the flags and comments of this project in the browser; they outlive the page.
    """

    title: str
    storage_key: str
    currency: str = "USD"
    collections: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[tuple[str, str]] = field(default_factory=list)
    _documents: dict[bytes, str] = field(default_factory=dict)
    _keys: set[str] = field(default_factory=set)

    def add(self, collection: Collection, entries: Iterable[PromptEntry]) -> int:
        """Add a collection, unless it has no entries, and return their number. Raises ValueError for a repeated key."""
        rows = [self._add_entry(entry) for entry in entries]
        if rows:
            self.collections.append({**vars(collection), "rows": rows})
        return len(rows)

    def write(self, path: Path) -> None:
        """Write the page. Raises StateError if that fails."""
        with open_atomic(path) as file:
            file.write(self.render())

    def render(self) -> str:
        """Return the page."""
        index = {
            "title": self.title,
            "storageKey": self.storage_key,
            "currency": self.currency,
            "collections": self.collections,
        }
        script, style = _file("page.js"), _file("page.css")
        return _template().render(
            title="".join(character if character.isprintable() else " " for character in self.title),
            script=Markup(script),
            style=Markup(style),
            script_hash=csp_hash(script),
            style_hash=csp_hash(style),
            index=encode_block(index),
            blocks=self.blocks,
        )

    def _add_entry(self, entry: PromptEntry) -> dict[str, Any]:
        if entry.key in self._keys:
            raise ValueError(f"two entries have the key {entry.key!r}")
        self._keys.add(entry.key)
        document = self._add_document(entry.document) if entry.document else None
        return {**entry.index_row(), "block": self._add_block("p", entry.as_json(document)), "document": document}

    def _add_document(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest not in self._documents:
            self._documents[digest] = self._add_block("d", text)
        return self._documents[digest]

    def _add_block(self, prefix: str, value: Any) -> str:
        block_id = f"{prefix}{len(self.blocks)}"
        self.blocks.append((block_id, encode_block(value)))
        return block_id


def encode_block(value: Any) -> str:
    """Return plain data as JSON, compressed with gzip, in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if find_surrogate(text) is not None:  # UTF-8 cannot encode it, a JSON escape can
        text = json.dumps(value, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), COMPRESSION_LEVEL, mtime=0)).decode()


def _file(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def csp_hash(content: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline script or stylesheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_file("page.html.j2"))
