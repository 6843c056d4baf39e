"""A document that stands in its column in parts, joined to one text.

["First paragraph.", "Second one."]
[["Title", ["First sentence.", " Second one."]], …]                     HotpotQA
{"title": ["Title", …], "sentences": [["First sentence.", …], …]}       HotpotQA on the Hugging Face hub
[{"title": "Title", "text": "…"}, {"title": "…", "paragraph_text": "…"}]   retrieval sets, MuSiQue
"""

import re
from typing import Any, Literal, NamedTuple

from longreward.utils.jsonl import Row, RowError, shorten

TEXT_KEYS = ("text", "paragraph_text", "sentences", "content", "contents")


def join_paragraphs(value: Any, column: str) -> Any:
    """The parts with a blank line between them, each under its title; what is no list of parts comes back as it is.

    Raises RowError for a part of another form.
    """
    if isinstance(value, dict) and isinstance(value.get("title"), list) and isinstance(value.get("sentences"), list):
        if len(value["title"]) != len(value["sentences"]):
            raise RowError(
                f"{column} has {len(value['title'])} titles and {len(value['sentences'])} lists of sentences"
            )
        value = list(zip(value["title"], value["sentences"], strict=True))
    if not isinstance(value, list):
        return value
    parts = (_paragraph(part, f"paragraph {number} of {column}") for number, part in enumerate(value))
    return "\n\n".join(part for part in parts if part.strip())


def _paragraph(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    title, text = None, None
    if isinstance(part, list | tuple) and len(part) == 2:
        title, text = part
    elif isinstance(part, dict):
        title = part.get("title")
        text = next((part[key] for key in TEXT_KEYS if part.get(key) is not None), None)
    # HotpotQA's sentences begin with the space that separates them.
    if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
        text = "".join(text)
    if not isinstance(text, str) or not isinstance(title, str | None):
        raise RowError(f"{where} is {type(part).__name__}, expected a text, [title, sentences] or {{title, text}}")
    return f"{title}\n{text}" if title else text


# Chats as lists of messages, in the layouts that public data sets have.
#
# [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]             OpenAI, TRL
# [{"role": "user", "content": [{"type": "text", "text": "…"}]}, …]                     content in parts
# [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]                      ShareGPT


QuestionPosition = Literal["auto", "last", "first"]
ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "model", "bot", "assistant"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
TOOL_ROLES = frozenset(("tool", "function", "function_call", "function_response", "observation", "tool_call"))
TEXT_PARTS = frozenset(("text", "input_text", "output_text"))


class Message(NamedTuple):
    """One turn of a chat; `role` is user, assistant or system where it is one of those names or of ShareGPT's."""

    role: str
    text: str


def parse_messages(value: Any, *, what: str = "the chat", expected: str = "a list of messages") -> list[Message]:
    """The messages of a chat; `what` names it in errors.

    Raises RowError for anything but texts: tool calls, images, and turns without role or content.
    """
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else type(value).__name__
        raise RowError(f"{what} is {found}, expected {expected}")
    return [_message(f"turn {number} of {what}", message) for number, message in enumerate(value)]


def split_chat(messages: Any, question: QuestionPosition = "auto") -> Row:
    """`context`, `query` and (where there is a reply) `answer` of a chat about a document.

    The first user message holds document and question, one blank line or more between them. `question` says where the
    question is; `auto` splits only where it is plain that the last paragraph is the question and the first is not. A
    system message goes before the question: prompts here have no system role. Raises RowError where the chat cannot be
    split.
    """
    turns = parse_messages(messages)
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


def _split_prompt(prompt: str, question: QuestionPosition) -> tuple[str, str]:
    """The document and the question. The rule of `auto` is in docs/formats.md."""
    last, first = LAST_BLANK_LINE.match(prompt), FIRST_BLANK_LINE.search(prompt)
    if last is None or first is None:
        raise RowError("the user's message has no blank line, which would tell document and question apart")
    opening, closing = prompt[: first.start()].rstrip(), prompt[last.end() :].lstrip()
    if question == "auto":
        at_start, at_end = looks_like_question(opening), looks_like_question(closing)
        if at_start or not at_end:
            found = {
                (True, True): "its first and its last paragraph both look like the question",
                (True, False): "its first paragraph looks like the question",
                (False, False): "neither its first nor its last paragraph looks like a question",
            }[at_start, at_end]
            raise RowError(
                f"where the user's message has its question is not clear: {found} ({shorten(closing)} is the last); "
                "set prepare.columns.question to last or first"
            )
    if question == "first":
        context, query = prompt[first.end() :].lstrip(), opening
    else:
        context, query = prompt[: last.end()].rstrip(), closing
    if len(query) >= len(context):
        raise RowError(
            f"the {'first' if question == 'first' else 'last'} paragraph, taken for the question, is not shorter than "
            "the rest, taken for the document"
        )
    return context, query


def looks_like_question(paragraph: str) -> bool:
    """Whether a paragraph reads as a question or an instruction, in English or Chinese or by a question mark.

    Meant to be wrong on the side of a refusal: what it does not know it does not call a question.
    """
    paragraph = paragraph.strip()
    if len(paragraph) > LONGEST_QUESTION:
        return False
    return bool(QUESTION_END.search(paragraph[-4:]) or QUESTION_START.match(paragraph))


def _message(where: str, message: Any) -> Message:
    names = message if isinstance(message, dict) else {}
    role, content = ("from", "value") if "from" in names and "role" not in names else ("role", "content")
    named = names.get(role)
    if not isinstance(named, str):
        keys = f" {', '.join(map(str, names))[:200]}" if names else ""
        raise RowError(
            f"{where} is {type(message).__name__}{keys}, expected {{role, content}} or {{from, value}} (ShareGPT)"
        )
    name = named.strip().lower()
    if name in TOOL_ROLES or names.get("tool_calls") or names.get("function_call"):
        raise RowError(f"{where} is a tool call or its result, which cannot be trained on here; leave such chats out")
    return Message(ROLES.get(name, named), _text(where, names.get(content)))


def _text(where: str, content: Any) -> str:
    """The text; parts are joined by a blank line, as the paragraphs that they are."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        found = "an empty list" if content == [] else type(content).__name__
        raise RowError(f"{where} has {found} for content, expected text")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise RowError(f"{where} has a part of type {shorten(kind)}; only text can be used here")
        texts.append(part["text"])
    return "\n\n".join(texts)


LONGEST_QUESTION = 1000  # characters; a longer paragraph is part of the document, whatever its first word is
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
