"""Parse judge replies. A parser returns None for an unreadable reply, and the request is repeated.

Every form with one meaning is accepted: labels with markup, punctuation or a known synonym, JSON, a last line without
brackets. A reply with an unknown label, two verdicts or a number outside the scale is unreadable.
"""

from longreward.judge.reply_parsing import ExtractedText, LabelFormat, find_verdict
from longreward.judge.reply_text import find_tagged, has_tag, last_line, normalize_label
from longreward.reward import reply_phrases as phrases
from longreward.reward.reply_forms import json_statements, lacks_information, lacks_statements, numbered_statements

MAX_EMPTY_LINES = 20  # a longer reply is an extract, even if each line says that nothing is relevant


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
        statements = json_statements(text) or numbered_statements(text)
    says_none = len(statements) == 1 and phrases.NO_STATEMENT.fullmatch(normalize_label(statements[0])) is not None
    if statements and not says_none:
        return statements
    return () if no_statement is not None and (says_none or lacks_statements(text, no_statement)) else None


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
    if 0 < len(lines) <= MAX_EMPTY_LINES and all(lacks_information(line, phrase) for line in lines):
        return ExtractedText(None)
    return ExtractedText(text)


def _rating(label: str) -> float | None:
    match = phrases.RATING_LABEL.fullmatch(normalize_label(label))
    rating = float(match[1]) if match else -1.0
    return rating if 0 <= rating <= 10 else None


def _support(label: str) -> float | None:
    return phrases.SUPPORT_LABELS.get(normalize_label(label))


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
