"""Reads what the writer wrote. Every reader gives None where it cannot: the writer is then asked again."""

from collections.abc import Iterator
from dataclasses import dataclass


def read_questions(text: str) -> tuple[str, ...] | None:
    """What stands between tags, on one line each; an empty tuple where there is `<no_question/>` in its place.

    >>> read_questions("<question>Who signed?</question> <question>When\\nwas that?</question>")
    ('Who signed?', 'When was that?')
    """
    found = tuple(" ".join(question.split()) for question in _tagged(text, "question") if question.strip())
    return found or (() if "<no_question/>" in text else None)


@dataclass(frozen=True)
class Written:
    """An answer; None: the document does not hold it."""

    text: str | None


def read_answer(text: str) -> Written | None:
    """What stands between the tags; one that was cut off has no closing tag and is none.

    >>> read_answer("<answer>Ann Lee signed it.</answer>")
    Written(text='Ann Lee signed it.')
    """
    found = next((answer.strip() for answer in _tagged(text, "answer") if answer.strip()), None)
    if found is not None:
        return Written(found)
    return Written(None) if "<unanswerable/>" in text else None


def _tagged(text: str, name: str) -> Iterator[str]:
    opening, closing, place = f"<{name}>", f"</{name}>", 0
    while (start := text.find(opening, place)) >= 0 and (end := text.find(closing, start)) >= 0:
        yield text[start + len(opening) : end]
        place = end + len(closing)
