"""Replies in JSON that follow a schema, with the analysis before the verdict (`judge.reply_format`).

    [Analysis]                               [Analysis]
    Two parts are asked, one is missing.     {"analysis": "Two parts are asked, one is missing.", "rating": 5}

    Rating: [[5]]

A template with a schema has two variants. The one for JSON is derived from the text, so that both ask the same: the
manifest names the passages on the format, and the replies in the examples are converted. The parsers of the text format
read the verdict, because they accept JSON with these keys; here a reply has to be JSON as a whole.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from longreward.chat_model import ReplyFormat
from longreward.errors import ConfigError
from longreward.judge.prompt_manifest import StructuredSpec
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.reply_text import find_tagged, parse_json_reply
from longreward.judge.truncation import TruncatedParser, TruncatedReply
from longreward.utils.language import Language

T = TypeVar("T")
Schema = Mapping[str, Any]

_VERDICT = re.compile(r"\[\[([^\[\]\n]{1,100})\]\]\s*\Z")
_LIST_VERDICT = re.compile(r"^\d{1,4}\. (.*?) ?\[\[([^\[\]\n]{1,100})\]\]$", re.MULTILINE)
"""A numbered item of a list: its analysis and its verdict."""


def object_schema(properties: Schema) -> dict[str, Any]:
    """Return the schema of an object; OpenAI's strict mode requires that all properties are, and no others exist."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def verdict_schema(schema: Schema) -> dict[str, Any]:
    """Return the schema without the analysis, for replies to a reminder; that of a list stays as it is."""
    *_, (name, verdict) = schema["properties"].items()
    return object_schema({name: verdict})


def fix_list_length(schema: Schema, length: int) -> Schema:
    """Return the schema of a list with exactly `length` items."""
    *before, (name, items) = schema["properties"].items()
    return {**schema, "properties": {**dict(before), name: {**items, "minItems": length, "maxItems": length}}}


def structured_template(template: PromptTemplate, spec: StructuredSpec, language: Language) -> PromptTemplate:
    """Return the variant of a template that asks for JSON.

    Raises:
        ConfigError: A passage that `spec` replaces does not occur exactly once.
    """
    literals = list(template.pieces[::2])
    for old, new in spec.replace.get(language, {}).items():
        if sum(literal.count(old) for literal in literals) != 1:
            raise ConfigError(
                f"the prompt {template.name} must contain {old!r} exactly once: `structured.replace` in its manifest "
                "says what a prompt for JSON contains instead. Adapt that entry, or remove `structured`"
            )
        literals = [literal.replace(old, new) for literal in literals]
    # The last line of the prompt opens the reply: "[Analysis]". Those of the examples stand in the text before.
    heading = re.escape(literals[-1].strip().rpartition("\n")[2])
    schema = object_schema(spec.properties)
    is_list = _is_list(schema)
    end = r"(?:[^\n]+\n)+" if is_list else r".+?\[\[[^\[\]\n]+\]\]$"
    example = re.compile(rf"(?<=^{heading}\n){end}", re.MULTILINE | re.DOTALL)
    literals[:-1] = [
        example.sub(lambda match: reply_to_json(match[0], schema) + "\n" * is_list, literal)
        for literal in literals[:-1]
    ]
    pieces = [*template.pieces]
    pieces[::2] = literals
    reply_format = ReplyFormat(is_list=is_list, reminder=spec.reminder.get(language, ""), schema=schema)
    return replace(template, pieces=tuple(pieces), reply_format=reply_format)


def reply_to_json(text: str, schema: Schema) -> str:
    """Convert a reply in the text format; one without a verdict has an empty one.

    >>> schema = object_schema({"analysis": {"type": "string"}, "rating": {"type": "integer"}})
    >>> reply_to_json("Too short.\\n\\nRating: [[4]]", schema)
    '{"analysis": "Too short.", "rating": 4}'
    """
    properties = schema["properties"]
    *before, verdict = properties
    if _is_list(schema):
        fields = list(properties[verdict]["items"].get("properties", ()))
        items = [dict(zip(fields, item, strict=True)) for item in _LIST_VERDICT.findall(text)] if fields else None
        return json.dumps({verdict: items or find_tagged(text, "statement").texts}, ensure_ascii=False)
    match = _VERDICT.search(text)
    label = match[1] if match else ""
    analysis = text[: match.start()].rpartition("\n")[0].strip() if match else text.strip()
    is_number = properties[verdict].get("type") in ("integer", "number")
    value = json.loads(label) if is_number and label else label
    return json.dumps({**dict.fromkeys(before, analysis), verdict: value}, ensure_ascii=False)


def json_parser(parse: Callable[[str], T | None], schema: Schema) -> Callable[[str], T | None]:
    """Return a parser that reads only replies that are JSON as a whole and have all properties of the schema.

    A code fence around the JSON is accepted: some servers add one. Anything else is unreadable, so that a number in a
    sentence, or in a half-written analysis, never becomes a verdict.
    """

    def parse_json(text: str) -> T | None:
        reply = _parse_object(text, schema)
        return None if reply is None else parse(json.dumps(reply, ensure_ascii=False))

    return parse_json


def truncated_json_parser(parse: Callable[[str], T | None], schema: Schema) -> TruncatedParser[T]:
    """Return a parser of replies that were cut at their token limit.

    The JSON is complete if the limit came after its end. Of an incomplete list, the complete items are used; a verdict
    comes last, so that an incomplete reply has none.
    """
    *_, verdict = schema["properties"]

    def parse_truncated(text: str) -> TruncatedReply[T] | None:
        value = json_parser(parse, schema)(text)
        if value is not None:
            return TruncatedReply(value, is_complete=True)
        items = _complete_items(text, verdict) if _is_list(schema) else []
        value = parse(json.dumps({verdict: items}, ensure_ascii=False)) if items else None
        return None if value is None else TruncatedReply(value, is_complete=False)

    return parse_truncated


def readable_text(text: str, schema: Schema) -> str:
    """Return the analysis and the verdict as the text format has them; a list, or text that is no JSON, stays as it is.

    >>> readable_text('{"analysis": "Too short.", "rating": 4}', object_schema({"analysis": {}, "rating": {}}))
    'Too short.\\n\\n[[4]]'
    """
    reply = _parse_object(text, verdict_schema(schema))
    *before, verdict = schema["properties"]
    if reply is None or _is_list(schema):
        return text
    analysis = [str(reply[name]).strip() for name in before if name in reply]
    return "\n\n".join([*analysis, f"[[{reply[verdict]}]]"])


def _is_list(schema: Schema) -> bool:
    *_, verdict = schema["properties"].values()
    return bool(verdict.get("type") == "array")


def _parse_object(text: str, schema: Schema) -> dict[str, Any] | None:
    reply = parse_json_reply(text)
    return reply if isinstance(reply, dict) and reply.keys() >= set(schema["required"]) else None


def _complete_items(text: str, name: str) -> list[str]:
    """Return the complete strings of the list `name`, with which truncated JSON begins."""
    start = re.match(rf'\s*(?:```\w*\s*)?\{{\s*"{re.escape(name)}"\s*:\s*\[', text)
    items: list[str] = []
    position = start.end() if start else len(text)
    separator = re.compile(r"[\s,]*+")
    while (match := separator.match(text, position)) and text.startswith('"', match.end()):
        try:
            item, position = json.JSONDecoder().raw_decode(text, match.end())
        except ValueError:
            break
        items.append(item)
    return items
