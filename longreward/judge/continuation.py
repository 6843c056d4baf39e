r"""Cut what a small judge writes after its verdict: it continues the examples of the prompt with one of its own.

    "Good, but short.\n\nRating: [[5]]\n\n[Question]\nWho dug the canal?\n…\nRating: [[9]]"   →   "… Rating: [[5]]"

Stop sequences end such a reply on the server, which saves its tokens. Servers differ in what they support, so every
reply is cut here as well, recorded ones included. A reply that uses the prompt's headings for its own analysis is not
cut: only a heading right after the verdict starts another example.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from longreward.chat_model import ChatRequest, ReplyFormat
from longreward.judge.escaping import find_headings
from longreward.judge.prompt_manifest import LIST_TEMPLATES, SUPPORT_LIST, Manifest
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.reply_text import DECORATION, find_closing_label
from longreward.judge.structured_output import structured_template
from longreward.utils.language import Language

_WINDOW = 200  # characters at the end of a reply that are considered
_NUMBER = re.compile(r"\{\w+\}")
_OPEN_BRACKETS = re.compile(r"\[\[[^\[\]\n]{1,100}\Z")
_VERDICT_LINE = re.compile(r"[\s*_`]{0,8}\[\[[^\[\]\n]{1,100}\]\][\s*_`.]{0,8}")


def reply_format(template_text: str, labels: Sequence[str] = (), *, is_list: bool, reminder: str = "") -> ReplyFormat:
    """Derive the format of the replies from a template's text (all but its slots).

    Args:
        labels: Headings that are part of a slot's value, such as "[Passage {n}]".
        is_list: The whole reply is a list; otherwise it ends with a verdict in double brackets.
        reminder: See `ReplyFormat`.
    """
    headings = find_headings(template_text.splitlines())
    ordered = [line.strip() for line in template_text.splitlines() if line.strip() in headings]
    counts = Counter(ordered)
    # Each example starts with the same heading, so it is the first one that occurs again.
    first = next((heading for heading in ordered if counts[heading] > 1), None)
    stop: tuple[str, ...] = ()
    if first is not None:
        # With the brackets of the verdict, a stop sequence cannot occur in the analysis before it.
        stop = (f"\n{first}",) if is_list else (f"]]\n\n{first}", f"]]\n{first}")
    # The last heading opens the reply itself, and a list may repeat it for each of its parts.
    own = ordered[-1] if is_list and ordered else None
    unique = dict.fromkeys(heading for heading in (*ordered, *labels) if heading != own)
    return ReplyFormat(tuple(unique), stop, is_list, reminder)


def reward_reply_format(template: PromptTemplate, language: Language, manifest: Manifest) -> ReplyFormat:
    """Derive the format of the replies to a template of the reward, and its variant for replies in JSON."""
    labels, spec = manifest.labels[language], manifest.templates[template.name]
    derived = reply_format(
        "".join(template.pieces[::2]),
        [labels.evidence, labels.extract] if "context" in template.slots else [],
        is_list=template.name in {*LIST_TEMPLATES, SUPPORT_LIST},
        reminder=spec.reminder.get(language, ""),
    )
    if spec.structured is None:
        return derived
    return replace(derived, structured=structured_template(template, spec.structured, language))


def end_list(request: ChatRequest, length: int) -> ChatRequest:
    """Return the request for a numbered list of `length` items, after which the server ends the reply.

    Small models continue such a list, up to the token limit.
    """
    stop = (*request.reply_format.stop, f"\n{length + 1}.")
    return replace(request, reply_format=replace(request.reply_format, stop=stop, list_length=length))


def cut_continuation(text: str, format: ReplyFormat) -> str:
    """Return the reply before the first heading of the prompt that follows its verdict or its list."""
    if not format.headings:
        return text
    start = 0  # of the section before the heading
    for match in _heading_pattern(format.headings).finditer(text):
        section = text[start : match.start()].strip()
        if format.is_list and not section:
            break  # the reply starts with a copy of the material
        if format.is_list or _has_verdict(section):
            return text[: match.start()].rstrip()
        start = match.end()
    return text


def close_verdict(text: str) -> str:
    """Restore the brackets that a stop sequence took from the end of a reply."""
    return text + "]]" if _OPEN_BRACKETS.search(text[-_WINDOW:]) else text


def _has_verdict(section: str) -> bool:
    lines = section.splitlines()
    is_last = bool(lines) and lines[-1].rstrip(DECORATION).endswith("]]")
    return is_last or any(_VERDICT_LINE.fullmatch(line) or find_closing_label(line) is not None for line in lines)


@lru_cache(maxsize=64)
def _heading_pattern(headings: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(
        _NUMBER.sub(r"\\d{1,6}", re.escape(heading.strip("[]")).replace(r"\{", "{").replace(r"\}", "}"))
        for heading in headings
    )
    return re.compile(rf"^[ \t*_#>]{{0,8}}[\[【［](?:{names})[\]】］][ \t*_:：]{{0,8}}$", re.MULTILINE | re.IGNORECASE)
