"""Chats and documents in the layouts of public data sets, converted to plain texts.

Documents in parts (`join_paragraphs`):

    ["First paragraph.", "Second one."]
    [["Title", ["First sentence.", " Second one."]], …]                     HotpotQA
    {"title": ["Title", …], "sentences": [["First sentence.", …], …]}       HotpotQA on the Hugging Face hub
    [{"title": "Title", "text": "…"}, {"title": "…", "paragraph_text": "…"}]   retrieval sets, MuSiQue

Chats (`parse_messages`, `split_chat`):

    [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]             OpenAI, TRL
    [{"role": "user", "content": [{"type": "text", "text": "…"}]}, …]                     content in parts
    [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]                      ShareGPT
"""

import re
from typing import Any, Literal, NamedTuple

from longreward.utils.jsonl import Row, RowError, shorten

QuestionPosition = Literal["auto", "last", "first"]

PARAGRAPH_TEXT_KEYS = ("text", "paragraph_text", "sentences", "content", "contents")
ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "model", "bot", "assistant"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
TOOL_ROLES = frozenset(("tool", "function", "function_call", "function_response", "observation", "tool_call"))
TEXT_PART_TYPES = frozenset(("text", "input_text", "output_text"))

MAX_QUESTION_CHARACTERS = 1000  # a longer paragraph belongs to the document, whatever its first word is
FIRST_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
LAST_BLANK_LINE = re.compile(r".*\n[ \t\r]*\n", re.DOTALL)
QUESTION_END = re.compile(r"[?？؟:：][\s\"'”’）)」』*_]*$|吗[。.]?$")
QUESTION_START = re.compile(
    r"\W*(?:(?:question|query|task|instructions?|q)\s*[:：]|(?:(?:please|now|kindly),?\s+)*(?:"
    r"(?:what|who|whom|whose|which|where|when|why|how|is|are|was|were|do|does|did|can|could|would|should|will|has|have"
    r"|summari[sz]e|explain|describe|list|name|give|provide|write|answer|identify|discuss|compare|analy[sz]e|outline"
    r"|translate|extract|find|state|tell|show|create|generate|determine|evaluate|read|rewrite|classify|count"
    r"|according\s+to|based\s+on|in\s+(?:one|two|three|a\s+few|your\s+own)\s+(?:sentences?|words?|paragraphs?)"
    r"|given\s+the|using\s+the)\b"
    r"|请|根据|基于|总结|概括|简述|概述|说明|解释|描述|列出|列举|分析|回答|翻译|写|什么|为什么|为何|如何|怎|哪|谁|是否|能否|问题[:：]))",
    re.IGNORECASE,
)


class Message(NamedTuple):
    """One turn of a chat; `role` is user, assistant or system if it has one of those names or ShareGPT's."""

    role: str
    text: str


# --- documents --------------------------------------------------------------------------------------------------------


def join_paragraphs(value: Any, column: str) -> Any:
    """Join the parts of a document with blank lines, each after its title; return any other value unchanged.

    Raises RowError for a part of an unknown form.
    """
    if isinstance(value, dict) and isinstance(value.get("title"), list) and isinstance(value.get("sentences"), list):
        titles, sentences = value["title"], value["sentences"]
        if len(titles) != len(sentences):
            raise RowError(f"{column} has {len(titles)} titles and {len(sentences)} lists of sentences")
        value = list(zip(titles, sentences, strict=True))
    if not isinstance(value, list):
        return value
    paragraphs = (_paragraph(part, f"paragraph {number} of {column}") for number, part in enumerate(value))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph.strip())


def _paragraph(part: Any, description: str) -> str:
    if isinstance(part, str):
        return part
    title, text = None, None
    if isinstance(part, list | tuple) and len(part) == 2:
        title, text = part
    elif isinstance(part, dict):
        title = part.get("title")
        text = next((part[key] for key in PARAGRAPH_TEXT_KEYS if part.get(key) is not None), None)
    # HotpotQA's sentences start with the space that separates them.
    if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
        text = "".join(text)
    if not isinstance(text, str) or not isinstance(title, str | None):
        raise RowError(
            f"{description} is {type(part).__name__}, expected a text, [title, sentences] or {{title, text}}"
        )
    return f"{title}\n{text}" if title else text


# --- chats ------------------------------------------------------------------------------------------------------------


def parse_messages(value: Any, *, name: str = "the chat", expected: str = "a list of messages") -> list[Message]:
    """Return the messages of a chat; `name` and `expected` describe it in errors.

    Raises RowError for anything that is not text: tool calls, images, and turns without role or content.
    """
    if not isinstance(value, list) or not value:
        raise RowError(f"{name} is {_describe_type(value)}, expected {expected}")
    return [_parse_message(f"turn {number} of {name}", message) for number, message in enumerate(value)]


def split_chat(messages: Any, question: QuestionPosition = "auto") -> Row:
    """Return `context`, `query` and (if there is a reply) `answer` of a chat about a document.

    The first user message contains the document and the question, separated by a blank line. `question` states where
    the question is; "auto" splits only if the last paragraph is clearly the question and the first is not. A system
    message is put before the question, because prompts have no system role here. Raises RowError if the chat cannot be
    split.
    """
    turns = parse_messages(messages)
    # A system message alone is not a chat, so it needs a second turn.
    system = ""
    if len(turns) > 1 and turns[0].role == "system":
        system, turns = turns[0].text.strip(), turns[1:]
    if turns[0].role != "user":
        raise RowError(f"the chat begins with {turns[0].role!r}, expected the user")
    if len(turns) > 1 and turns[1].role != "assistant":
        raise RowError(f"the chat's second turn is {turns[1].role!r}, expected the assistant's answer")
    context, query = _split_prompt(turns[0].text.strip(), question)
    query = f"{system}\n\n{query}" if system else query
    return {"context": context, "query": query} | ({"answer": turns[1].text} if len(turns) > 1 else {})


def is_question(paragraph: str) -> bool:
    """Return whether a paragraph reads as a question or an instruction: English, Chinese, or with a question mark.

    In doubt the result is False, so that the chat is rejected rather than split wrongly.
    """
    paragraph = paragraph.strip()
    if len(paragraph) > MAX_QUESTION_CHARACTERS:
        return False
    return bool(QUESTION_END.search(paragraph[-4:]) or QUESTION_START.match(paragraph))


def _split_prompt(prompt: str, question: QuestionPosition) -> tuple[str, str]:
    """Return the document and the question; docs/formats.md describes the rule of "auto"."""
    last_break, first_break = LAST_BLANK_LINE.match(prompt), FIRST_BLANK_LINE.search(prompt)
    if last_break is None or first_break is None:
        raise RowError("the user's message has no blank line, which would separate document and question")
    first_paragraph, last_paragraph = prompt[: first_break.start()].rstrip(), prompt[last_break.end() :].lstrip()
    if question == "auto":
        first_matches, last_matches = is_question(first_paragraph), is_question(last_paragraph)
        if first_matches or not last_matches:
            reason = {
                (True, True): "its first and its last paragraph both look like the question",
                (True, False): "its first paragraph looks like the question",
                (False, False): "neither its first nor its last paragraph looks like a question",
            }[first_matches, last_matches]
            raise RowError(
                f"the position of the question in the user's message is not clear: {reason} "
                f"({shorten(last_paragraph)} is the last); set prepare.columns.question to last or first"
            )
    if question == "first":
        context, query = prompt[first_break.end() :].lstrip(), first_paragraph
    else:
        context, query = prompt[: last_break.end()].rstrip(), last_paragraph
    if len(query) >= len(context):
        raise RowError(
            f"the {'first' if question == 'first' else 'last'} paragraph, taken as the question, is not shorter than "
            "the rest, taken as the document"
        )
    return context, query


def _parse_message(description: str, message: Any) -> Message:
    fields = message if isinstance(message, dict) else {}
    role_key, content_key = ("from", "value") if "from" in fields and "role" not in fields else ("role", "content")
    role = fields.get(role_key)
    if not isinstance(role, str):
        keys = f" {', '.join(map(str, fields))[:200]}" if fields else ""
        raise RowError(
            f"{description} is {type(message).__name__}{keys}, expected {{role, content}} or {{from, value}} (ShareGPT)"
        )
    # Unknown roles keep their name, which the caller reports.
    name = role.strip().lower()
    if name in TOOL_ROLES or fields.get("tool_calls") or fields.get("function_call"):
        raise RowError(f"{description} is a tool call or its result, which is not supported; remove such chats")
    return Message(ROLES.get(name, role), _parse_content(description, fields.get(content_key)))


def _parse_content(description: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RowError(f"{description} has {_describe_type(content)} for content, expected text")
    texts = []
    for part in content:
        part_type = part.get("type") if isinstance(part, dict) else type(part).__name__
        if part_type not in TEXT_PART_TYPES or not isinstance(part.get("text"), str):
            raise RowError(f"{description} has a part of type {shorten(part_type)}; only text is supported")
        texts.append(part["text"])
    return "\n\n".join(texts)  # parts are paragraphs


def _describe_type(value: Any) -> str:
    return "an empty list" if value == [] else type(value).__name__
