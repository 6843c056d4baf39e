"""Forms in which judges list statements, or say that there is no statement or nothing relevant."""

from longreward.judge.reply_text import has_tag, normalize_label, parse_json_reply
from longreward.reward import reply_phrases as phrases


def json_statements(text: str) -> tuple[str, ...] | None:
    """Return the items of a reply that is a JSON list of strings; None for any other reply."""
    reply = parse_json_reply(text)
    if isinstance(reply, dict) and len(reply) == 1:
        key, reply = next(iter(reply.items()))
        if key.casefold() not in ("statements", "facts", "factual_statements"):
            return None
    if not isinstance(reply, list) or not all(isinstance(statement, str) for statement in reply):
        return None
    return tuple(statement.strip() for statement in reply if statement.strip())


def numbered_statements(text: str) -> tuple[str, ...]:
    """Return the items of a list that is numbered from 1 and, apart from a heading, the whole reply."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and phrases.LIST_HEADING.fullmatch(lines[0]):
        lines = lines[1:]
    items = [phrases.LIST_ITEM.fullmatch(line) for line in lines]
    if not all(item is not None and int(item[1]) == number for number, item in enumerate(items, start=1)):
        return ()
    return tuple(item[2].strip() for item in items if item is not None)


def lacks_statements(text: str, no_statement: str) -> bool:
    """Return whether the whole reply says that there is no statement (`no_statement`: the exact form)."""
    if no_statement in text:
        return True
    if no_statement.startswith("<") and has_tag(text, no_statement.strip("</> ")):
        return True
    label = normalize_label(_strip_list_marker(text))
    return json_statements(text) == () or phrases.NO_STATEMENT.fullmatch(label) is not None


def lacks_information(line: str, phrase: str) -> bool:
    """Return whether a line says that nothing is relevant (`phrase`: the normalized form that the prompt asks for)."""
    label = normalize_label(_strip_list_marker(line))
    if label.startswith(phrase):
        label = f"no relevant information{label[len(phrase) :]}"
    return bool(phrases.NOTHING_EN.fullmatch(label) or phrases.NOTHING_ZH.fullmatch(label.replace(" ", "")))


def _strip_list_marker(line: str) -> str:
    return phrases.LIST_MARKER.sub("", line.strip(), count=1)
