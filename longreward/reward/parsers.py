"""Parse judge replies. A parser returns None for an unreadable reply, and the request is repeated.

`score.parsing` selects one of two sets. `strict` (this module) accepts every form with one meaning: labels with markup,
punctuation or a known synonym, JSON, a closing line without brackets. A reply with an unknown label, two verdicts or a
number outside the scale is unreadable. `published` (`published_parsers.py`) reproduces the published code.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from longreward.judge.prompts import Parsing
from longreward.judge.reply_parsing import ExtractedText, LabelFormat, find_verdict
from longreward.judge.reply_text import find_tagged, has_tag, last_line, normalize_label, parse_json_reply
from longreward.reward import published_parsers
from longreward.reward import reply_phrases as phrases

MAX_EMPTY_LINES = 20  # a longer reply is an extract, even if each line says that nothing is relevant


class ItemCheck(NamedTuple):
    """Whether a response meets an item of a rubric (1 or 0), with the judge's reason."""

    met: float
    analysis: str


def parse_rating(text: str) -> float | None:
    """Return the rating from 0 to 10.

    Other scales are not converted: "[[80/100]]" may come from a judge that ignores the prompt's anchors, and "[[7/8]]"
    may mean "7 or 8".

    >>> parse_rating("The answer calls itself [[10]], but misses the point.\\nRating: [[2]]")
    2.0
    >>> parse_rating('{"rating": "8/10"}'), parse_rating("[[7]] or [[8]]"), parse_rating("Rating: [[80/100]]")
    (8.0, None, None)
    """
    verdict = find_verdict(text, RATING)
    if verdict is not None:
        return verdict.value
    line = last_line(text)
    is_whole_reply = "\n" not in text.strip()
    # A number on the last line may belong to the analysis unless it names its scale.
    return _rating(line) if is_whole_reply or phrases.NUMBER_WITH_SCALE.search(line) else None


def parse_support(text: str) -> float | None:
    """Return 1 for "Fully supported", 0.5 for "Partially supported", 0 for "No support", and for their synonyms.

    "Mostly supported" and "Not fully supported" fit two levels, "Yes" and "N/A" fit none; all are unreadable.

    >>> parse_support("Both facts are in passage 2. Support: [[Fully-supported.]] (see also [[Passage 2]])")
    1.0
    >>> parse_support("支持程度：[[部分支持]]"), parse_support("[[Mostly supported]]")
    (0.5, None)
    """
    verdict = find_verdict(text, SUPPORT)
    return _support(last_line(text)) if verdict is None else verdict.value


def parse_statements(text: str, no_statement: str | None) -> tuple[str, ...] | None:
    """Return the statements; an empty tuple if the reply says that there is none (`no_statement`: the exact form).

    Statements are in `<statement>` tags, or the whole reply is a numbered list or a JSON list.

    >>> parse_statements('<Statement id="1">Keld is a village.</Statement>', "<no_statement/>")
    ('Keld is a village.',)
    >>> parse_statements("1. Keld is a village.\\n2. It was founded in 1905.", "<no_statement/>")
    ('Keld is a village.', 'It was founded in 1905.')
    >>> parse_statements("<no_statement />", "<no_statement/>")
    ()
    """
    tagged = find_tagged(text, "statement")
    if not tagged.closed:
        return None
    # An unclosed tag may hide a statement that merges two; the request is repeated instead.
    statements = tuple(statement for statement in tagged.texts if statement)
    if not statements and not has_tag(text, "statement"):
        statements = _json_statements(text) or _numbered_statements(text)
    says_none = len(statements) == 1 and phrases.NO_STATEMENT.fullmatch(normalize_label(statements[0])) is not None
    if statements and not says_none:
        return statements
    return () if no_statement is not None and (says_none or _says_none(text, no_statement)) else None


def parse_extraction(text: str, nothing_relevant: str) -> ExtractedText | None:
    """Return the extracted text; no text if the whole reply says that nothing is relevant.

    A reply with further text is used as it is: information that is discarded by mistake is lost for every response,
    while an irrelevant extract costs one line in the prompt.

    >>> parse_extraction("There is no relevant information in this part.", "No relevant information")
    ExtractedText(text=None)
    >>> parse_extraction("No relevant information - the mill closed in 1950", "No relevant information").text
    'No relevant information - the mill closed in 1950'
    """
    text = text.strip()
    if not text:
        return None
    # Judges often repeat the heading of the prompt, or say for several subjects that nothing is relevant.
    lines = [line for line in text.splitlines() if line.strip(phrases.DECORATION)]
    while len(lines) > 1 and phrases.EXTRACT_HEADING.fullmatch(lines[0].strip(phrases.DECORATION)):
        lines = lines[1:]
    phrase = normalize_label(nothing_relevant)
    if 0 < len(lines) <= MAX_EMPTY_LINES and all(_says_nothing(line, phrase) for line in lines):
        return ExtractedText(None)
    return ExtractedText(text)


def parse_checks(text: str, *, count: int) -> tuple[ItemCheck, ...] | None:
    """Return the verdicts on the `count` items of a rubric, in its order.

    Each is a numbered line that ends with its verdict, perhaps after several lines of analysis, or an object in JSON.

    >>> parse_checks("1. It names the year. [[Met]]\\n2. The founder is missing. [[Not met]]", count=2)
    (ItemCheck(met=1.0, analysis='It names the year.'), ItemCheck(met=0.0, analysis='The founder is missing.'))
    >>> parse_checks("1. It names the year. [[Met]]", count=2)
    """
    reply = parse_json_reply(text)
    if isinstance(reply, dict) and len(reply) == 1:
        (reply,) = reply.values()
    if isinstance(reply, list):
        if not all(isinstance(entry, dict) for entry in reply):
            return None
        sections = [(str(entry.get("analysis", "")), f"[[{entry.get('verdict')}]]") for entry in reply]
    else:
        _, *pieces = phrases.CHECK_NUMBER.split(text)
        if [int(number) for number in pieces[::2]] != list(range(1, count + 1)):
            return None
        sections = [(section.partition("[[")[0], section) for section in pieces[1::2]]
    checks = [
        ItemCheck(met, analysis.strip()) for analysis, section in sections if (met := parse_met(section)) is not None
    ]
    return tuple(checks) if len(checks) == len(sections) == count else None


def parse_rubric(text: str) -> tuple[str, ...] | None:
    """Return the items of a rubric, which is a numbered list or a JSON list of texts.

    >>> parse_rubric("Rubric:\\n1. Keld is a village.\\n2. It was founded in 1905.")
    ('Keld is a village.', 'It was founded in 1905.')
    """
    reply = parse_json_reply(text)
    if isinstance(reply, list):
        return tuple(reply) if reply and all(isinstance(item, str) for item in reply) else None
    items = [match for line in text.splitlines() if (match := phrases.LIST_ITEM.fullmatch(line.strip()))]
    if not items or [int(item[1]) for item in items] != list(range(1, len(items) + 1)):
        return None
    return tuple(item[2].strip() for item in items)


def label_parser(labels: Mapping[str, float], *, resembles: re.Pattern[str], key: str) -> Callable[[str], float | None]:
    """Return a parser of replies that end with one of `labels`; `key` holds it in JSON.

    `resembles` matches unknown labels that were meant as a verdict.
    """
    form = LabelFormat(
        parse=lambda label: labels.get(normalize_label(label)),
        resembles=lambda label: resembles.search(normalize_label(label)) is not None,
        keys=(key,),
    )

    def parse(text: str) -> float | None:
        verdict = find_verdict(text, form)
        return form.parse(last_line(text)) if verdict is None else verdict.value

    return parse


def _rating(label: str) -> float | None:
    match = phrases.RATING_LABEL.fullmatch(normalize_label(label))
    rating = float(match[1]) if match else -1.0
    return rating if 0 <= rating <= 10 else None


def _support(label: str) -> float | None:
    return phrases.SUPPORT_LABELS.get(normalize_label(label))


def _json_statements(text: str) -> tuple[str, ...] | None:
    """Return the items of a reply that is a JSON list of strings; None for any other reply."""
    reply = parse_json_reply(text)
    if isinstance(reply, dict) and len(reply) == 1:
        key, reply = next(iter(reply.items()))
        if key.casefold() not in ("statements", "facts", "factual_statements"):
            return None
    if not isinstance(reply, list) or not all(isinstance(statement, str) for statement in reply):
        return None
    return tuple(statement.strip() for statement in reply if statement.strip())


def _numbered_statements(text: str) -> tuple[str, ...]:
    """Return the items of a list that is numbered from 1 and, apart from a heading, the whole reply."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and phrases.LIST_HEADING.fullmatch(lines[0]):
        lines = lines[1:]
    items = [phrases.LIST_ITEM.fullmatch(line) for line in lines]
    if not all(item is not None and int(item[1]) == number for number, item in enumerate(items, start=1)):
        return ()
    return tuple(item[2].strip() for item in items if item is not None)


def _says_none(text: str, no_statement: str) -> bool:
    if no_statement in text:
        return True
    if no_statement.startswith("<") and has_tag(text, no_statement.strip("</> ")):
        return True
    label = normalize_label(_without_list_marker(text.strip()))
    return _json_statements(text) == () or phrases.NO_STATEMENT.fullmatch(label) is not None


def _says_nothing(line: str, phrase: str) -> bool:
    label = normalize_label(_without_list_marker(line.strip()))
    if label.startswith(phrase):
        label = f"no relevant information{label[len(phrase) :]}"
    return bool(phrases.NOTHING_EN.fullmatch(label) or phrases.NOTHING_ZH.fullmatch(label.replace(" ", "")))


def _without_list_marker(line: str) -> str:
    return phrases.LIST_MARKER.sub("", line, count=1)


RATING = LabelFormat(
    parse=_rating,
    # A number in another form: out of range, a range, another scale.
    resembles=lambda label: phrases.NUMBER.match(normalize_label(label)) is not None,
    keys=("rating", "score", "评分", "得分", "分数"),
    void_before=phrases.OTHER_SCALE,
)
SUPPORT = LabelFormat(
    parse=_support,
    resembles=lambda label: phrases.RESEMBLES_SUPPORT.search(normalize_label(label)) is not None,
    keys=("support", "support_level", "level", "label", "支持程度"),
)


parse_met = label_parser(phrases.MET_LABELS, resembles=re.compile(r"\bmet\b|满足"), key="verdict")
parse_relevance = label_parser(phrases.RELEVANCE_LABELS, resembles=re.compile(r"relevan|相关|有关"), key="relevance")
parse_need = label_parser(phrases.NEED_LABELS, resembles=re.compile(r"need|需要"), key="citation")


@dataclass(frozen=True)
class Parsers:
    """One of the two sets of reply parsers: a function per kind of reply."""

    rating: Callable[[str], float | None]
    support: Callable[[str], float | None]
    statements: Callable[[str, str | None], tuple[str, ...] | None]
    extraction: Callable[[str, str], ExtractedText | None]


PARSERS: Mapping[Parsing, Parsers] = {
    "strict": Parsers(parse_rating, parse_support, parse_statements, parse_extraction),
    "published": Parsers(
        published_parsers.parse_rating,
        published_parsers.parse_support,
        published_parsers.parse_statements,
        published_parsers.parse_extraction,
    ),
}
