"""Parse the replies of the optional dimensions, rubric and citations; None for an unreadable reply."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from longreward.judge.reply_parsing import LabelFormat, find_verdict
from longreward.judge.reply_text import last_line, normalize_label, parse_json_reply
from longreward.reward import reply_phrases as phrases


class ItemCheck(NamedTuple):
    """Whether a response meets an item of a rubric (1 or 0), with the judge's reason."""

    met: float
    analysis: str


def parse_checks(text: str, *, count: int) -> tuple[ItemCheck, ...] | None:
    """Return the verdicts on the `count` items of a rubric, in its order.

    Each is a numbered line that ends with its verdict, perhaps after several lines of analysis, or an object in JSON.

    >>> parse_checks("1. It names the year. [[Met]]\\n2. The founder is missing. [[Not met]]", count=2)
    (ItemCheck(met=1.0, analysis='It names the year.'), ItemCheck(met=0.0, analysis='The founder is missing.'))
    >>> parse_checks("1. It names the year. [[Met]]", count=2)
    """
    sections = numbered_sections(text, key="verdict")
    if [number for number, *_ in sections] != list(range(1, count + 1)):
        return None
    checks = [ItemCheck(met, analysis) for _, analysis, section in sections if (met := parse_met(section)) is not None]
    return tuple(checks) if len(checks) == count else None


def numbered_sections(text: str, *, key: str) -> list[tuple[int, str, str]]:
    """Return number, analysis and verdict of each numbered line, or of each object in JSON, where `key` holds it."""
    reply = parse_json_reply(text)
    if isinstance(reply, dict) and len(reply) == 1:
        (reply,) = reply.values()
    if isinstance(reply, list):
        if not all(isinstance(entry, dict) for entry in reply):
            return []
        entries = enumerate(reply, 1)
        return [(number, str(entry.get("analysis", "")).strip(), f"[[{entry.get(key)}]]") for number, entry in entries]
    _, *pieces = phrases.CHECK_NUMBER.split(text)
    numbered = zip(map(int, pieces[::2]), pieces[1::2], strict=True)
    return [(number, section.partition("[[")[0].strip(), section) for number, section in numbered]


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


parse_met = label_parser(phrases.MET_LABELS, resembles=re.compile(r"\bmet\b|满足"), key="verdict")
parse_relevance = label_parser(phrases.RELEVANCE_LABELS, resembles=re.compile(r"relevan|相关|有关"), key="relevance")
parse_need = label_parser(phrases.NEED_LABELS, resembles=re.compile(r"need|需要"), key="citation")
