"""The two sets of reply parsers that `score.parsing` selects.

`strict` (`parsers.py`) accepts every form with one meaning; `published` (`published_parsers.py`) reproduces the
published code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from longreward.judge.prompts import Parsing
from longreward.judge.reply_parsing import ExtractedText
from longreward.reward import parsers, published_parsers


@dataclass(frozen=True)
class Parsers:
    """A function per kind of reply."""

    rating: Callable[[str], float | None]
    support: Callable[[str], float | None]
    statements: Callable[[str, str | None], tuple[str, ...] | None]
    extraction: Callable[[str, str], ExtractedText | None]


PARSERS: Mapping[Parsing, Parsers] = {
    "strict": Parsers(parsers.parse_rating, parsers.parse_support, parsers.parse_statements, parsers.parse_extraction),
    "published": Parsers(
        published_parsers.parse_rating,
        published_parsers.parse_support,
        published_parsers.parse_statements,
        published_parsers.parse_extraction,
    ),
}
