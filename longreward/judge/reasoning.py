"""Models that think aloud: what they say after the thought is their answer, and the thought never is.

    "<think>Perhaps [[9]]?</think> Rating: [[4]]"    said: "Rating: [[4]]"
    "Perhaps [[9]]?</think> Rating: [[4]]"           the same: the template had opened the thought
    "<think>Perhaps [[9]]? Or"                       said: nothing yet, the limit came first
    "Perhaps [[9]]? Or"                              the same, of a judge that is known to think

A thought that the server hands over beside the answer is put before it in the same form, so that the ledger holds
all of it in one text and this is the only place that takes it off again.
"""

import re

from longreward.chat_model import ChatReply


def prepend_reasoning(thought: str, said: str) -> str:
    """Both in one text, as a model writes them that is asked directly."""
    return f"<think>{thought}</think>{said}" if thought.strip() else said


def strip_reasoning(answer: ChatReply, *, thinks: bool = False) -> str:
    """The answer's text without what was thought before, or within, it.

    `thinks`: the judge is known to think, so that an answer which the limit cut off before any mark of a thought is
    one: some templates open the thought themselves, and only its closing tag would have shown it.
    """
    text = answer.text
    if thinks and answer.finish_reason == "length" and not (_OPENING.search(text) or _CLOSING.search(text)):
        return ""
    if _CLOSING.search(text):
        text = _without_whole(text)
        *_, rest = [0, *(closing.end() for closing in _CLOSING.finditer(text))]
        text = text[rest:]
    opening = _OPENING.search(text)
    if opening is not None and (not text[: opening.start()].strip() or answer.finish_reason == "length"):
        text = text[: opening.start()]  # it was cut while thinking; elsewhere, the tag is only spoken of
    final = text.rfind(_FINAL)
    return text[final + len(_FINAL) :] if final >= 0 else text


def _without_whole(text: str) -> str:
    """Without every thought that is opened and closed; one pattern for both would be slow where many only open."""
    kept, place = [], 0
    while (opening := _OPENING.search(text, place)) and (closing := _ANY_CLOSING.search(text, opening.end())):
        kept.append(text[place : opening.start()])
        place = closing.end()
    return "".join(kept) + text[place:]


def has_reasoning(answer: ChatReply) -> bool:
    """Whether some of the text is a thought."""
    return strip_reasoning(answer) != answer.text


_NAMES = r"(?:think|thinking|thought|reasoning)"
_OPENING = re.compile(rf"<{_NAMES}>|\[THINK\]|◁think▷", re.IGNORECASE)
_END = rf"</{_NAMES}>|\[/THINK\]|◁/think▷"
# A closing tag within a statement is one that the judged response holds.
_CLOSING = re.compile(rf"(?:{_END})(?![^<]*</statement>)", re.IGNORECASE)
_ANY_CLOSING = re.compile(_END, re.IGNORECASE)
_FINAL = "<|channel|>final<|message|>"  # gpt-oss behind a server that does not take its channels apart
