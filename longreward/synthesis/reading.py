"""Parse what the writer wrote. A parser returns None where it cannot, and the writer is asked again."""

from dataclasses import dataclass

from longreward.judging.reply_parsing import has_tag, tagged_texts


def parse_questions(text: str) -> tuple[str, ...] | None:
    """What stands between tags, on one line each; an empty tuple where there is `<no_question/>` in its place.

    >>> parse_questions("<question>Who signed?</question> <question>When\\nwas that?</question>")
    ('Who signed?', 'When was that?')
    """
    tagged = tagged_texts(text, "question")
    questions = tuple(" ".join(question.split()) for question in tagged.texts if question)
    if not tagged.closed:
        return None
    return questions or (() if has_tag(text, "no_question") else None)


@dataclass(frozen=True)
class Written:
    """An answer; None: the document does not hold it."""

    text: str | None


def parse_answer(text: str) -> Written | None:
    """What stands between the tags; one that was cut off has no closing tag and is none.

    >>> parse_answer("<answer>Ann Lee signed it.</answer>")
    Written(text='Ann Lee signed it.')
    """
    answer = next((answer for answer in tagged_texts(text, "answer").texts if answer), None)
    if answer is not None:
        return Written(answer)
    return Written(None) if has_tag(text, "unanswerable") else None
