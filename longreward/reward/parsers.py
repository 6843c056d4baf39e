"""Parse what a judge replied. A parser returns None where it cannot, and the judge is asked again.

`score.parsing` chooses between two sets. `strict` (this module) accepts every form that has one meaning: labels with
markup, punctuation or a known synonym, JSON, a closing line without brackets. A reply with an unknown label, two
verdicts or a number outside the scale is not parsed. `published` (`published_parsers.py`) reproduces the published
code.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from longreward.judge.prompts import Parsing
from longreward.judge.reply_parsing import (
    LabelFormat,
    find_tagged,
    find_verdict,
    has_tag,
    last_line,
    normalize_label,
    parse_json_reply,
)
from longreward.reward import published_parsers
from longreward.reward.published_parsers import ExtractedText


def parse_rating(text: str) -> float | None:
    """The rating from 0 to 10.

    Another scale is not converted: "[[80/100]]" may be a judge that ignores the prompt's anchors, and "[[7/8]]" may
    mean "7 or 8".

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
    # A number on the last line may be part of the analysis, unless it says of how many points it is.
    return _rating(line) if is_whole_reply or _WITH_SCALE.search(line) else None


def parse_support(text: str) -> float | None:
    """1 for "Fully supported", 0.5 for "Partially supported", 0 for "No support", or a clear synonym of one of them.

    "Mostly supported" and "Not fully supported" can stand for two of the levels, "Yes" and "N/A" for none: they are
    not parsed.

    >>> parse_support("Both facts are in passage 2. Support: [[Fully-supported.]] (see also [[Passage 2]])")
    1.0
    >>> parse_support("支持程度：[[部分支持]]"), parse_support("[[Mostly supported]]")
    (0.5, None)
    """
    verdict = find_verdict(text, SUPPORT)
    return _support(last_line(text)) if verdict is None else verdict.value


def parse_statements(text: str, no_statement: str | None) -> tuple[str, ...] | None:
    """The statements; an empty tuple where the reply says that there is none, in a form that `no_statement` allows.

    They stand in `<statement>` tags, or are a numbered list or a JSON list that is all of the reply.

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
    statements = tuple(statement for statement in tagged.texts if statement)
    if not statements and not has_tag(text, "statement"):
        statements = _json_statements(text) or _numbered(text)
    says_none = len(statements) == 1 and _NO_STATEMENT.fullmatch(normalize_label(statements[0])) is not None
    if statements and not says_none:
        return statements
    return () if no_statement is not None and (says_none or _says_none(text, no_statement)) else None


def parse_extraction(text: str, nothing_relevant: str) -> ExtractedText | None:
    """What was extracted, as the judge wrote it; nothing where the reply says only that nothing is relevant.

    A reply that goes on after that is kept: a part that is discarded by mistake is lost for every response, and one
    that is kept by mistake costs a line in the prompt.

    >>> parse_extraction("There is no relevant information in this part.", "No relevant information")
    Extracted(text=None)
    >>> parse_extraction("No relevant information - the mill closed in 1950", "No relevant information").text
    'No relevant information - the mill closed in 1950'
    """
    text = text.strip()
    if not text:
        return None
    lines = [line for line in text.splitlines() if line.strip(_BLANK)]
    while len(lines) > 1 and _HEADING.fullmatch(lines[0].strip(_BLANK)):
        lines = lines[1:]
    phrase = normalize_label(nothing_relevant)
    if 0 < len(lines) <= _MOST_LINES and all(_says_nothing(line, phrase) for line in lines):
        return ExtractedText(None)
    return ExtractedText(text)


def _rating(label: str) -> float | None:
    match = _RATING.fullmatch(normalize_label(label))
    rating = float(match[1]) if match else -1.0
    return rating if 0 <= rating <= 10 else None


def _resembles_rating(label: str) -> bool:
    """A number in another form: out of range, a range, another scale."""
    return _NUMBER.match(normalize_label(label)) is not None


def _support(label: str) -> float | None:
    return SUPPORT_LABELS.get(normalize_label(label))


def _resembles_support(label: str) -> bool:
    return _LIKE_SUPPORT.search(normalize_label(label)) is not None


def _json_statements(text: str) -> tuple[str, ...] | None:
    """The texts of a reply that is a JSON list of texts; None where it is anything else."""
    reply = parse_json_reply(text)
    if isinstance(reply, dict) and len(reply) == 1:
        key, reply = next(iter(reply.items()))
        if key.casefold() not in ("statements", "facts", "factual_statements"):
            return None
    if not isinstance(reply, list) or not all(isinstance(statement, str) for statement in reply):
        return None
    return tuple(statement.strip() for statement in reply if statement.strip())


def _numbered(text: str) -> tuple[str, ...]:
    """The points of a list that is numbered from 1 and, but for a heading, all of the reply."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and _LIST_HEADING.fullmatch(lines[0]):
        lines = lines[1:]
    points = [_POINT.fullmatch(line) for line in lines]
    if not all(point is not None and int(point[1]) == n for n, point in enumerate(points, start=1)):
        return ()
    return tuple(point[2].strip() for point in points if point is not None)


def _says_none(text: str, no_statement: str) -> bool:
    if no_statement in text:
        return True
    if no_statement.startswith("<") and has_tag(text, no_statement.strip("</> ")):
        return True
    return (
        _json_statements(text) == () or _NO_STATEMENT.fullmatch(normalize_label(_point_text(text.strip()))) is not None
    )


def _says_nothing(line: str, phrase: str) -> bool:
    label = normalize_label(_point_text(line.strip()))
    if label.startswith(phrase):
        label = f"no relevant information{label[len(phrase) :]}"
    return _NOTHING_EN.fullmatch(label) is not None or _NOTHING_ZH.fullmatch(label.replace(" ", "")) is not None


def _point_text(line: str) -> str:
    """A line without the mark of a list."""
    return _MARK.sub("", line, count=1)


@dataclass(frozen=True)
class Parsers:
    """One function for each kind of reply; see the functions of this module."""

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

SUPPORT_LABELS: Mapping[str, float] = {
    **dict.fromkeys(("fully supported", "full support", "fully support", "supported", "completely supported"), 1.0),
    **dict.fromkeys(("完全支持", "完全得到支持", "充分支持", "全部支持", "完全被支持"), 1.0),
    **dict.fromkeys(("partially supported", "partial support", "partly supported", "partially support"), 0.5),
    **dict.fromkeys(("部分支持", "部分得到支持", "部分被支持"), 0.5),
    **dict.fromkeys(("no support", "not supported", "unsupported", "no supported", "not supported at all"), 0.0),
    **dict.fromkeys(("contradicted", "not supported (contradicted)", "fully unsupported"), 0.0),
    **dict.fromkeys(
        ("不支持", "没有支持", "无支持", "未支持", "不被支持", "未得到支持", "没有得到支持", "完全不支持"), 0.0
    ),
}
_RATING = re.compile(
    r"(\d{1,3}(?:\.\d{1,6})?)(?:\s{0,3}(?:/|out of|of)\s{0,3}10(?:\.0)?)?\s{0,3}(?:分|points?|pts)?", re.A
)
_NUMBER = re.compile(r"[-+−~≈<>]?\s?\d")
_WITH_SCALE = re.compile(r"\d\s{0,3}(?:/|out of|of)\s{0,3}10|\d\s{0,3}分")
_OTHER_SCALE = re.compile(r"\W{0,3}(?:/|out of|of)\s{0,3}(?!10(?:\.0)?(?!\d|\.\d))\d")
_LIKE_SUPPORT = re.compile(
    r"support|contradict|refut|fully|partial|partly|mostly|unclear|unknown|insufficient|\bn/?a\b|^(?:yes|no|none|true|false)$"
    r"|支持|部分|完全|矛盾|无法|未知"
)
RATING = LabelFormat(_rating, _resembles_rating, ("rating", "score", "评分", "得分", "分数"), _OTHER_SCALE)
SUPPORT = LabelFormat(_support, _resembles_support, ("support", "support_level", "level", "label", "支持程度"))
_NO_STATEMENT = re.compile(
    r"(?:there (?:are|is) )?no (?:factual )?statements?(?: (?:found|in (?:the|this) (?:answer|response)))?"
    r"|(?:该|此|这个)?(?:回答|答案)?(?:中)?(?:没有|无)(?:任何)?(?:事实性?)?陈述"
)
_POINT = re.compile(r"[(]?(\d{1,4})[.):、）](?!\d)\s{0,8}(\S.*)")
_LIST_HEADING = re.compile(r"[^\n]{0,80}(?:statements?|facts|陈述)[^\n]{0,20}[:：\]]\W{0,4}", re.I)
_MARK = re.compile(r"^(?:[(（]?\d{1,4}[.)、）]|[-*•])\s{0,8}")
_BLANK = " \t\r\"'“”‘’`*#_>-"
_HEADING = re.compile(
    r"[\[【]?(?:relevant information|extracted information|(?:有关|相关)信息)[\]】]?\s{0,3}[:：]?", re.I
)
_MOST_LINES = 20
_TOPIC = (
    r"(?: (?:in|on|about|regarding|concerning|for|to|from|within|of|related to|relating to|with respect to)"
    r"(?: (?!(?:but|however|except|although|though|only|besides|yet|while|which|that|who|where|because)\b)"
    r"[^\W\d][\w'’]{0,40}){1,10}){0,3}"
)
_NOTHING_EN = re.compile(
    r"(?:(?:there (?:is|was)|i (?:found|find|see|could find|can find)|"
    r"(?:this|the) (?:given |provided )?(?:part|passage|text|document|section|excerpt|chunk)(?: of the document)? "
    r"(?:contains|has|holds|provides|includes|offers|gives)) )?"
    r"(?:no (?:directly )?(?:relevant|related) (?:information|content|info)|no information (?:relevant|related))"
    r"(?:(?: (?:is|was|were|has been|could be|can be))?(?: (?:found|available|provided|present|given|contained)))?"
    rf"{_TOPIC}|nothing(?: is)? relevant|not relevant|none|n/a"
)
_NOTHING_ZH = re.compile(
    r"(?:本|该|此|这个|这一)?(?:文档|文本|文章|片段|部分|段落|内容){0,2}(?:中|里|内)?"
    r"(?:没有|无|未|并无|并未|不含|不包含|未提供|未提及)(?:找到|发现|包含|提供|提及|含有)?(?:任何)?"
    r"(?:(?:与|和|跟)(?:该|此|这个)?(?:问题|查询|提问)(?:直接)?)?(?:直接)?(?:有关|相关|无关)?的?(?:信息|内容|资料)"
)
