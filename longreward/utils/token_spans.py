"""Find the spans of tokens in a text, in which chunk sizes are counted.

Only spans are needed, never ids: a chunk is a slice of the document. The built-in "simple" tokenizer needs no file; any
other is a `tokenizer.json`, local or from the hub, for the light `tokenizers` library.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from longreward.errors import ConfigError
from longreward.utils.language import HAN_RANGE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Han, kana and hangul have about one token a character.
CJK_RANGE = HAN_RANGE + "\u3040-\u30ff\uac00-\ud7af"
SIMPLE_TOKEN = re.compile(rf"[{CJK_RANGE}]|\d{{1,3}}|[^\W\d_{CJK_RANGE}]{{1,6}}|([^\w\s]|_)\1{{0,7}}")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


class TextTokenizer(Protocol):
    """Anything that finds the spans of tokens in a text."""

    @property
    def name(self) -> str:
        """The name that scores record."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return each token's (start, end) in characters: ascending, never overlapping.

        An empty span is a further token of the character before it (a rare character consists of several byte tokens).
        """


class SimpleTokenizer:
    """Split words into pieces of up to six letters, numbers into groups of up to three digits, punctuation into runs.

    Each Chinese, Japanese and Korean character is a token. On records of LongBench this gives 4.1 characters of English
    or one Chinese character a token: near the counts of the usual language models, on the high side.
    """

    name = "simple"

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in SIMPLE_TOKEN.finditer(text)]


class FileTokenizer:
    """The tokenizer of a model."""

    def __init__(self, name: str, tokenizer: "Tokenizer") -> None:
        self.name = name
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def spans(self, text: str) -> list[tuple[int, int]]:
        # Not `encode`, which holds the interpreter lock (tokenizers 0.23): 3 seconds for 2 million characters.
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        spans, previous_end = [], 0
        for start, end in encoding.offsets:
            # Byte-level tokenizers give all tokens of one character the whole span of that character.
            start = max(start, previous_end)
            previous_end = max(end, start)
            spans.append((start, previous_end))
        return spans


def open_tokenizer(name: str) -> TextTokenizer:
    """Open the tokenizer of `score.tokenizer`: "simple", a path (a folder or its tokenizer.json), or a hub id.

    A hub id may have a revision: `org/name@revision`. Raises ConfigError where nothing can be read.
    """
    if name == "simple":
        return SimpleTokenizer()
    from tokenizers import Tokenizer

    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return FileTokenizer(name, Tokenizer.from_file(str(file)))
        if not path.exists() and HUB_ID.fullmatch(name):
            identifier, _, revision = name.partition("@")
            return FileTokenizer(name, Tokenizer.from_pretrained(identifier, revision=revision or "main"))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"score.tokenizer: {name} has no usable tokenizer.json: {error}") from error
    raise ConfigError(
        f"score.tokenizer: there is no tokenizer.json at {name}; give a path to one, a hub id, or 'simple'"
    )


def keep_ends(text: str, spans: Sequence[tuple[int, int]], tokens: int, *, separator: str = "\n") -> str:
    """Return the first and last halves of `tokens` tokens of the text, joined by `separator`; `spans` are all tokens.

    >>> keep_ends("one two three four", [(0, 3), (4, 7), (8, 13), (14, 18)], 3)
    'one two\\nfour'
    """
    first, last = tokens - tokens // 2, tokens // 2
    start = text[: spans[first - 1][1]] if first else ""
    return f"{start}{separator}{text[spans[-last][0] :]}" if last else start
