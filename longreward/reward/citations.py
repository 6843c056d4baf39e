"""Citations: F1 of citation precision and recall (optional dimension), as LongCite measures them (arXiv 2409.02897).

recall      mean over the statements of a response: how far its cited passages support it (1, 0.5 or 0); a statement
            without a citation counts 1 if it needs none, else 0
precision   share of the citations that are relevant to their statement
score       10 times the harmonic mean of both

LongCite's `auto_scorer.py` and `get_citations` define the details: the judge sees the cited passages of a statement
together for the support, and each alone for the relevance. A response without any citation has precision 0, and so
score 0; no call is made about it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from longreward.judge import ParsedReply
from longreward.judge.truncation import truncated_verdict
from longreward.records import Evidence, Statement, Verdict
from longreward.reward.config import ScoreConfig
from longreward.reward.optional_parsers import parse_need, parse_relevance
from longreward.reward.parsers import parse_support
from longreward.reward.ratings import DimensionInput, make_verdict
from longreward.utils.concurrency import gather

MAX_CITATIONS = 3
"""Citations of a statement in the LongCite format that count, as in its code."""
MIN_CHARACTERS = 6
"""Text outside of statements counts as one if it is at least as long, as in LongCite's code."""
NO_PASSAGES = "the document has no numbered passages, which citations refer to"
NO_CITATION = "The response cites no passage."

_MARKER = re.compile(r"<C(\d{1,6})>")
_LINE_MARKER = re.compile(r"^[ \t]*\[(\d{1,6})\][ \t]*", re.MULTILINE)
_STATEMENT = re.compile(r"<statement>(.*?)</statement>", re.DOTALL)
_CITE = re.compile(r"<cite>(.*?)</cite>", re.DOTALL)
_RANGE = re.compile(r"\[(\d{1,9})-(\d{1,9})\]")
_BRACKET = re.compile(r"\[(\d{1,6}(?:[ \t]*[-–,，、;][ \t]*\d{1,6}){0,20})\]")
_SPACED_BRACKET = re.compile(rf"[ \t]*{_BRACKET.pattern}")
_SENTENCE = re.compile(
    # The end of a sentence, but not of a title or an initial ("Dr. Voss", "A. Voss"); its citations may come after it.
    rf"(?:(?<!\b[A-Z])(?<!\b[A-Z][a-z])[.!?][\"'”’)]{{0,2}}(?=[\s\[]|\Z)|[。！？；]|\n)(?:{_SPACED_BRACKET.pattern})*"
)


@dataclass(frozen=True)
class Passages:
    """The numbered passages of a document: the number of the first one, and the span of each without its number."""

    first: int
    spans: tuple[tuple[int, int], ...]


class CitedStatement(NamedTuple):
    """A statement of a response with the spans of the document that it cites."""

    text: str
    citations: tuple[tuple[int, int], ...]


class CitationScore(NamedTuple):
    """The measure of one response, each value from 0 to 1."""

    recall: float
    precision: float
    f1: float


async def judge_citations(item: DimensionInput) -> Verdict:
    """Check all statements and citations of the response at once, with one call each."""
    passages = find_passages(item.document.text)
    if passages is None:
        return make_verdict(item, [], score=None, reason=NO_PASSAGES, prompt_hashes=())
    cited = parse_citations(item.cited_response, passages)
    if not any(statement.citations for statement in cited):
        return make_verdict(item, [], score=0.0, reason=None, analysis=NO_CITATION, prompt_hashes=())
    checked = await gather(_check_statement(item, statement) for statement in cited)
    statements = [statement for statement, _ in checked]
    replies = [reply for _, replies in checked for reply in replies]
    score = reason = analysis = None
    if unreadable := [reply.reason for reply in replies if reply.value is None]:
        reason = f"{len(unreadable)} of {len(replies)} checks of citations are unreadable; the first: {unreadable[0]}"
    else:
        measured = measure_citations(statements)
        score = 10 * measured.f1
        analysis = f"Citation recall {measured.recall:.3f}, citation precision {measured.precision:.3f}."
    names = ("citation_support", "citation_relevance", "citation_need")
    return make_verdict(
        item,
        replies,
        score=score,
        reason=reason,
        analysis=analysis,
        statements=statements,
        prompt_hashes=tuple(item.prompts.template(name, item.language).hash for name in names),
    )


def measure_citations(statements: Sequence[Statement]) -> CitationScore:
    """Return recall, precision and F1 of statements whose checks are all readable."""
    supports = [statement.support or 0.0 for statement in statements]
    relevances = [chunk.relevance or 0.0 for statement in statements for chunk in statement.evidence]
    recall = sum(supports) / len(supports) if supports else 0.0
    precision = sum(relevances) / len(relevances) if relevances else 0.0
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return CitationScore(recall, precision, f1)


@lru_cache(maxsize=64)
def find_passages(document: str) -> Passages | None:
    """Return the passages after `<C0>`, `<C1>`, … (LongCite), else the lines that start with `[1]`, `[2]`, …; None if
    the document has neither.

    The first number is 0 or 1. A number that does not follow the one before it is text, such as a quoted marker.
    """
    for pattern in (_MARKER, _LINE_MARKER):
        markers: list[re.Match[str]] = []
        for match in pattern.finditer(document):
            number = int(match[1])
            if number == int(markers[-1][1]) + 1 if markers else number <= 1:
                markers.append(match)
        if markers:
            ends = [*(marker.start() for marker in markers[1:]), len(document)]
            spans = tuple((marker.end(), end) for marker, end in zip(markers, ends, strict=True))
            return Passages(int(markers[0][1]), spans)
    return None


def parse_citations(response: str, passages: Passages) -> list[CitedStatement]:
    """Return the statements of a response with what they cite.

    With `<statement>` tags citations are ranges in `<cite>` tags, as LongCite's models write them. Otherwise each
    sentence is a statement, and its citations are numbers in brackets: `[3]`, `[1, 2]`, `[4-6]`.
    """
    if "<statement>" in response:
        return _parse_longcite(response, passages)
    statements = []
    start = 0
    for end in [*(match.end() for match in _SENTENCE.finditer(response)), len(response)]:
        sentence, start = response[start:end], end
        ranges = [
            _parse_range(part) for bracket in _BRACKET.findall(sentence) for part in re.split(r"[,，、;]", bracket)
        ]
        spans = _spans(passages, ranges)
        text = _SPACED_BRACKET.sub("", sentence).strip()
        if len(text) >= MIN_CHARACTERS:
            statements.append(CitedStatement(text, tuple(dict.fromkeys(spans))))
    return statements


def response_texts(config: ScoreConfig, response: str, document: str) -> dict[str, str]:
    """Return the texts of a response in DimensionInput: without citations where these are judged, else unchanged."""
    if "citations" not in config.dimensions:
        return {"response": response}
    return {"response": strip_citations(response, document), "cited_response": response}


def strip_citations(response: str, document: str) -> str:
    """Return the response without citations and tags, as the other dimensions see it."""
    if "<statement>" in response:
        # LongCite's models write statements without a space between them.
        text = _CITE.sub("", response).replace("</statement><statement>", " ")
        return text.replace("<statement>", "").replace("</statement>", "")
    return response if find_passages(document) is None else _SPACED_BRACKET.sub("", response)


def _parse_longcite(response: str, passages: Passages) -> list[CitedStatement]:
    statements = []
    outside, *parts = _STATEMENT.split(response)
    for tagged, following in [(None, outside), *zip(parts[::2], parts[1::2], strict=True)]:
        if tagged is not None and tagged.strip():
            ranges: list[tuple[int, int]] = []  # of adjacent ones a single range
            for low, high in (map(int, match) for cite in _CITE.findall(tagged) for match in _RANGE.findall(cite)):
                if _span(passages, low, high) is None:
                    continue
                high = min(high, passages.first + len(passages.spans) - 1)
                if ranges and low == ranges[-1][1] + 1:
                    ranges[-1] = (ranges[-1][0], high)
                else:
                    ranges.append((low, high))
            spans = _spans(passages, ranges[:MAX_CITATIONS])
            statements.append(CitedStatement(_CITE.sub("", tagged).strip(), tuple(spans)))
        text = following.partition("<statement>")[0].strip()  # a statement that is never closed is left out
        if len(text) >= MIN_CHARACTERS:
            statements.append(CitedStatement(text, ()))
    return statements


def _parse_range(text: str) -> tuple[int, int]:
    low, *high = map(int, re.split(r"[-–]", text))
    return low, high[0] if high else low


def _spans(passages: Passages, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans of the ranges of numbers that exist."""
    return [span for low, high in ranges if (span := _span(passages, low, high)) is not None]


def _span(passages: Passages, low: int, high: int) -> tuple[int, int] | None:
    """Return the span of the passages with these numbers; None if the first does not exist or the range is empty."""
    last = len(passages.spans) - 1
    start, end = max(low - passages.first, 0), min(high - passages.first, last)
    if high < low or start > last or end < 0:
        return None
    return passages.spans[start][0], passages.spans[end][1]


async def _check_statement(item: DimensionInput, cited: CitedStatement) -> tuple[Statement, list[ParsedReply[float]]]:
    """Return the statement with its support and the relevance of each citation, and the judge's replies."""
    language, slots = item.language, {"question": item.query, "statement": cited.text}
    if not cited.citations:
        request = item.prompts.template("citation_need", language).request({**slots, "answer": item.response})
        need = await item.judge.query(request, parse_need, parse_truncated=truncated_verdict(parse_need))
        support = None if need.value is None else 1 - need.value
        return Statement(text=cited.text, support=support, analysis=need.text or None, reason=need.reason), [need]
    texts = [_MARKER.sub("", item.document.text[start:end]).strip() for start, end in cited.citations]
    supported = item.prompts.template("citation_support", language).request(
        {**slots, "context": item.prompts.evidence(texts, language)}
    )
    relevant = [
        item.prompts.template("citation_relevance", language).request(
            {**slots, "context": item.prompts.evidence([text], language)}
        )
        for text in texts
    ]
    support_reply, *relevance_replies = await gather(
        item.judge.query(request, parse, parse_truncated=truncated_verdict(parse))
        for request, parse in [(supported, parse_support), *((request, parse_relevance) for request in relevant)]
    )
    replies = [support_reply, *relevance_replies]
    statement = Statement(
        text=cited.text,
        support=support_reply.value,
        analysis="\n\n".join(reply.text for reply in replies if reply.text) or None,
        evidence=tuple(
            Evidence(start=start, end=end, text=item.document.text[start:end], relevance=reply.value)
            for (start, end), reply in zip(cited.citations, relevance_replies, strict=True)
        ),
        reason=next((reply.reason for reply in replies if reply.reason), None),
    )
    return statement, replies
