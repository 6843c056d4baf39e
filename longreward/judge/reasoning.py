"""Strip the reasoning of models that think aloud: only the text after it is the reply.

    "<think>Perhaps [[9]]?</think> Rating: [[4]]"    "Rating: [[4]]"
    "Perhaps [[9]]?</think> Rating: [[4]]"           "Rating: [[4]]" (the chat template opened the tag)
    "<think>Perhaps [[9]]? Or"                       "" (cut off at the token limit)
    "Perhaps [[9]]? Or"                              "" if the model is known to think

Servers that return the reasoning in a field of its own get it prepended in the same form, so the ledger stores one
text, and only this module handles reasoning.
"""

import re

from longreward.chat_model import ChatReply

_NAMES = r"(?:think|thinking|thought|reasoning)"
_OPENING_TAG = re.compile(rf"<{_NAMES}>|\[THINK\]|◁think▷", re.IGNORECASE)
_END = rf"</{_NAMES}>|\[/THINK\]|◁/think▷"
# A closing tag within <statement>…</statement> is quoted from the judged response.
_CLOSING_TAG = re.compile(rf"(?:{_END})(?![^<]*</statement>)", re.IGNORECASE)
_ANY_CLOSING_TAG = re.compile(_END, re.IGNORECASE)
_FINAL_CHANNEL = "<|channel|>final<|message|>"  # gpt-oss behind a server that does not separate its channels


def prepend_reasoning(reasoning: str, text: str) -> str:
    """Join both in one text, as a model writes them itself."""
    return f"<think>{reasoning}</think>{text}" if reasoning.strip() else text


def strip_reasoning(reply: ChatReply, *, thinks: bool = False) -> str:
    """Return the text of a reply without the reasoning before, or within, it.

    `thinks`: the model is known to think, so a reply that the token limit cut off before any tag is all reasoning. Some
    chat templates open the tag themselves, and only the closing tag would have shown it.
    """
    text = reply.text
    truncated = reply.finish_reason == "length"
    if thinks and truncated and not (_OPENING_TAG.search(text) or _CLOSING_TAG.search(text)):
        return ""
    if _CLOSING_TAG.search(text):
        text = _remove_tagged(text)
        *_, end = [0, *(closing.end() for closing in _CLOSING_TAG.finditer(text))]
        text = text[end:]
    opening = _OPENING_TAG.search(text)
    # An opening tag in the middle of a complete reply is only mentioned, not used.
    if opening is not None and (not text[: opening.start()].strip() or truncated):
        text = text[: opening.start()]
    final = text.rfind(_FINAL_CHANNEL)
    return text[final + len(_FINAL_CHANNEL) :] if final >= 0 else text


def has_reasoning(reply: ChatReply) -> bool:
    """Whether some of the text is reasoning."""
    return strip_reasoning(reply) != reply.text


def _remove_tagged(text: str) -> str:
    # One pattern for both tags would take quadratic time on a text with many opening tags.
    parts, position = [], 0
    while (opening := _OPENING_TAG.search(text, position)) and (
        closing := _ANY_CLOSING_TAG.search(text, opening.end())
    ):
        parts.append(text[position : opening.start()])
        position = closing.end()
    return "".join(parts) + text[position:]
