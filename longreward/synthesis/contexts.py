"""Documents as contexts of a length: the short ones are left out, the long ones cut."""

from collections.abc import Iterator

from longreward.retrieval.chunking import cut
from longreward.synthesis.config import SynthesizeConfig
from longreward.synthesis.documents import Document
from longreward.synthesis.records import Context, Dropped
from longreward.utils.language import detect_language
from longreward.utils.token_spans import TextTokenizer


def contexts_of(document: Document, config: SynthesizeConfig, tokenizer: TextTokenizer) -> Iterator[Context | Dropped]:
    """The document, or its parts of up to `max_tokens`, each cut at the end of a paragraph or line where one is near.

    What is left of fewer than `min_tokens` is dropped. The parts of a document have its language.
    """
    text = document.text
    language = detect_language(text)
    for part, (start, end) in enumerate(_bounds(text, config.max_tokens, tokenizer)):
        piece = text[start:end].strip()
        tokens = len(tokenizer.spans(piece))
        if tokens < config.min_tokens:
            reason = f"{tokens:,} tokens; synthesize.min_tokens is {config.min_tokens:,}"
            yield Dropped(document.name, "short", reason, part=part)
        else:
            yield Context(document.name, part, piece, language)


def _bounds(text: str, size: int, tokenizer: TextTokenizer) -> Iterator[tuple[int, int]]:
    start = 0
    spans = tokenizer.spans(text)
    if len(spans) <= size:
        yield 0, len(text)
        return
    while start < len(text):
        rest = [(a - start, b - start) for a, b in spans if a >= start]
        first = cut(len(text) - start, rest, size)[0]
        end = start + first.end
        if end < len(text):
            end = _softened(text, start, end)
        yield start, end
        start = end


def _softened(text: str, start: int, end: int) -> int:
    """The last end of a paragraph in the second half, else of a line, else the place itself."""
    middle = (start + end) // 2
    for mark in ("\n\n", "\n"):
        place = text.rfind(mark, middle, end)
        if place >= 0:
            return place + len(mark)
    return end
