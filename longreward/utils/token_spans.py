"""Where the tokens of a text lie: what chunk sizes are counted in.

Only spans are needed, never ids: a chunk is a slice of the document. The built-in "simple" tokenizer needs no file; any
`tokenizer.json`, local or from the hub, is read with the light `tokenizers` library.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from longreward.errors import ConfigError
from longreward.utils.language import HAN_RANGE

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_tokenizer(name: str) -> "TextTokenizer":
    """The tokenizer that `score.tokenizer` names: "simple", a path (a folder or its tokenizer.json), or a hub id.

    A hub id may carry a revision: `org/name@revision`. Raises ConfigError where there is nothing to read.
    """
    if name == "simple":
        return SimpleTokenizer()
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return FileTokenizer(name, _read_file(file))
    if path.exists():
        raise ConfigError(f"score.tokenizer: {path} holds no tokenizer.json")
    if not HUB_ID.fullmatch(name):
        raise ConfigError(
            f"score.tokenizer: there is no {name}; give a path to a tokenizer.json, a hub id, or 'simple'"
        )
    return FileTokenizer(name, _read_hub(name))


class TextTokenizer(Protocol):
    """Anything that says where the tokens of a text lie."""

    @property
    def name(self) -> str:
        """How it is recorded with the scores."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Each token's (start, end) in characters: ascending, never overlapping.

        An empty span is a further token of the character before it (a rare character is several byte tokens).
        """


class SimpleTokenizer:
    """Words in pieces of up to six letters, numbers in groups of up to three digits, Chinese, Japanese and Korean
    characters one by one, runs of one punctuation mark.

    With nothing to load it comes near the counts of the usual language models, on the high side: 4.1 characters of
    English or one Chinese character a token, on records of LongBench.
    """

    name = "simple"

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See TextTokenizer."""
        return [match.span() for match in SIMPLE.finditer(text)]


class FileTokenizer:
    """A model's own tokenizer."""

    def __init__(self, name: str, tokenizer: "Tokenizer") -> None:
        self.name = name
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See TextTokenizer. Byte-level tokenizers give all tokens of one character that character's whole span."""
        spans, reached = [], 0
        # Not `encode`, which keeps the interpreter lock (tokenizers 0.23): 3 seconds for 2 million characters.
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        for start, end in encoding.offsets:
            begin = max(start, reached)
            reached = max(end, begin)
            spans.append((begin, reached))
        return spans


def _read_file(file: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"score.tokenizer: {file} is not a tokenizer.json: {error}") from error


def _read_hub(name: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    identifier, _, revision = name.partition("@")
    try:
        return Tokenizer.from_pretrained(identifier, revision=revision or "main")
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(
            f"score.tokenizer: {name} is no path here, and the hub gave no tokenizer.json for it: {error}"
        ) from error


DENSE = HAN_RANGE + "\u3040-\u30ff\uac00-\ud7af"  # kana and hangul beside Han: about a token a character
SIMPLE = re.compile(rf"[{DENSE}]|\d{{1,3}}|[^\W\d_{DENSE}]{{1,6}}|([^\w\s]|_)\1{{0,7}}")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")
