"""Names, dates, times and numbers of a text in one spelling, so that texts of different wording can be compared.

    >>> sorted(find_mentions("On June 3rd at 7:40 pm, Ms Voss paid one thousand two hundred pounds."))
    [('date', '3 june'), ('name', 'voss'), ('number', '1200'), ('time', '7:40')]

Number words up to ten are not mentions, because they count parts of the answer itself ("for two reasons").
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MentionKind = Literal["name", "date", "time", "number"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words("january february march april may june july august september october november december")
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
_MONTH = "(?P<month{0}>" + "|".join(f"{month}|{month[:3]}\\b\\.?" for month in MONTHS) + ")"
_DATE = re.compile(
    r"\b(?P<day1>\d{1,2})(?:st|nd|rd|th)?(?: day)?(?: of)? " + _MONTH.format(1) + r"\b"
    r"|\b" + _MONTH.format(2) + r" (?:the )?(?P<day2>\d{1,2})(?:st|nd|rd|th)?\b(?!:)",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\b(\d{1,2}):(\d{2})\b|\b(\d{1,2})\.(\d{2}) ?(?=[ap]\.?m\b)|\b(\d{1,2}) ?(?=[ap]\.?m\b)", re.IGNORECASE
)
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_NUMBER_WORD = "|".join([*sorted(_UNITS, key=len, reverse=True), *_TENS, *_SCALES])
_NUMBER_WORDS = re.compile(rf"\b(?:a )?(?:{_NUMBER_WORD})(?:(?:[ -]| and )(?:{_NUMBER_WORD}))*\b", re.IGNORECASE)
_SMALLEST_NUMBER_WORD = 11
_CAPITALISED = re.compile(r"[A-Z][A-Za-z]+(?:['’-][A-Za-z]+)*")
_NO_NAMES = frozenset(MONTHS + DAYS + tuple(f"{day}s" for day in DAYS)) | frozenset(
    _words(
        "dear judge justice lord lady mayor captain councillor doctor professor aunt uncle i'm i'll i've mr mrs ms "
        "dr miss sir madam yes no question answer q a an the it he she they we you his her their this that these "
        "those there in on at by of for from to with as and but or so if when while after before who what which "
        "where why how because since although however then"
    )
)
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bMrs\.)(?<!\b[A-Z]\.)['\"”’)]*\s+|(?<=[.!?]['\"”’)])\s+|\n+"
)
_AFTER_START = re.compile(r"(?:^|[:.!?\"“‘(—–])\W*$")
_LIST_MARKER = re.compile(r"^\s*(?:\d{1,2}[.)](?=\s|$)|[-*•]|[a-z]\))\s*")


@dataclass(frozen=True)
class Mention:
    """A date, time or number at `text[start:end]`, in one spelling."""

    kind: MentionKind
    value: str
    start: int
    end: int


def split_sentences(text: str) -> list[str]:
    """Return the sentences and list items of a text, without markers of list items."""
    parts = (_LIST_MARKER.sub("", part).strip() for part in _SENTENCE_END.split(text))
    return [part for part in parts if re.search(r"\w", part)]


def words_of(text: str) -> list[str]:
    """Return the words in lower case, without a possessive s."""
    return [re.sub(r"['’]s$|['’]$", "", word) for word in re.findall(r"\w+(?:['’-]\w+)*", text.lower())]


def find_figures(text: str) -> list[Mention]:
    """Return the dates, times and numbers of a text in its order; a part of one is not another."""
    mentions: list[Mention] = []
    for found in (_dates(text), _times(text), _numbers(text), _number_words(text)):
        for mention in found:
            if all(mention.end <= other.start or mention.start >= other.end for other in mentions):
                mentions.append(mention)
    return sorted(mentions, key=lambda mention: mention.start)


def find_names(sentence: str) -> list[list[str]]:
    """Return runs of consecutive capitalised words in lower case.

    A single word at the beginning of a sentence, or after a colon or quotation mark, is left out: it may be any word.
    """
    runs: list[list[str]] = []
    starts: list[int] = []
    end = -1
    for match in _CAPITALISED.finditer(sentence):
        word = words_of(match[0])[0]
        if word in _NO_NAMES:
            continue
        if runs and sentence[end : match.start()] == " ":
            runs[-1].append(word)
        else:
            runs.append([word])
            starts.append(match.start())
        end = match.end()
    return [
        run
        for run, start in zip(runs, starts, strict=True)
        if len(run) > 1 or not _AFTER_START.search(sentence[:start])
    ]


def find_mentions(text: str) -> set[tuple[MentionKind, str]]:
    """Return all mentions of a text as (kind, value)."""
    mentions: set[tuple[MentionKind, str]] = {(figure.kind, figure.value) for figure in find_figures(text)}
    for sentence in split_sentences(text):
        mentions |= {("name", word) for run in find_names(sentence) for word in run}
    return mentions


def _dates(text: str) -> Iterator[Mention]:
    for match in _DATE.finditer(text):
        day, month = (match["day1"], match["month1"]) if match["day1"] else (match["day2"], match["month2"])
        full = next(name for name in MONTHS if name.startswith(month.lower().rstrip(".")[:3]))
        yield Mention("date", f"{int(day)} {full}", *match.span())


def _times(text: str) -> Iterator[Mention]:
    for match in _TIME.finditer(text):
        hour, minute = match[1] or match[3] or match[5], match[2] or match[4] or "00"
        # Morning and evening are not distinguished: 19:40 equals 7:40 pm, and responses often omit pm.
        yield Mention("time", f"{(int(hour) - 1) % 12 + 1}:{minute}", *match.span())


def _numbers(text: str) -> Iterator[Mention]:
    for match in _NUMBER.finditer(text):
        value = match[0].replace(",", "")
        yield Mention("number", re.sub(r"\.0+$", "", value), *match.span())


def _number_words(text: str) -> Iterator[Mention]:
    for match in _NUMBER_WORDS.finditer(text):
        value = _parse_number_words(re.split(r"[ -]", match[0].lower()))
        if value >= _SMALLEST_NUMBER_WORD:
            yield Mention("number", str(value), *match.span())


def _parse_number_words(words: list[str]) -> int:
    total = current = 0
    for word in words:
        if word in _UNITS:
            current += _UNITS.index(word)
        elif word in _TENS:
            current += 10 * (_TENS.index(word) + 2)
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in _SCALES:
            total += max(current, 1) * _SCALES[word]
            current = 0
    return total + current
