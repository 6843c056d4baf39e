"""Contexts: of a length, in a language."""

import pytest

from longreward.errors import ConfigError
from longreward.synthesis.config import SynthesizeConfig
from longreward.synthesis.documents import Document, split_document
from longreward.synthesis.records import Context, Dropped
from longreward.utils.token_spans import SimpleTokenizer


def cut(text: str, **settings: int) -> list[Context | Dropped]:
    return list(split_document(Document("a.txt", text), SynthesizeConfig(**settings), SimpleTokenizer()))


def test_a_document_of_fitting_length_is_one_context_and_a_short_one_is_dropped() -> None:
    assert cut("one two three", min_tokens=3, max_tokens=3) == [Context("a.txt", 0, "one two three", "en")]
    [dropped] = cut("one two", min_tokens=3, max_tokens=3)
    assert isinstance(dropped, Dropped)
    assert (dropped.why, dropped.reason) == ("short", "2 tokens; synthesize.min_tokens is 3")


def test_a_long_document_is_cut_at_the_end_of_a_paragraph_or_line_where_one_is_near() -> None:
    text = "one two three.\n\nfour five sixteen\nseven ten two nine"
    found = cut(text, min_tokens=1, max_tokens=6)  # the stop is a token too
    assert [one.text for one in found if isinstance(one, Context)] == [
        "one two three.",
        "four five sixteen",  # five tokens, since words have up to six letters; two more fit, but not the whole line
        "seven ten two nine",
    ]
    assert [one.part for one in found] == [0, 1, 2]


def test_parts_have_the_language_of_the_whole_document() -> None:
    text = "克尔德村由李安建立。" * 6 + "\n\n" + "one two three four five six"
    parts = cut(text, min_tokens=1, max_tokens=60)
    assert {part.language for part in parts if isinstance(part, Context)} == {"zh"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": {}}, "must ask for 1 to 50"),
        ({"questions": {"general": 0}}, "must ask for 1 to 50"),
        ({"questions": {"general": 51}}, "must ask for 1 to 50"),
        ({"questions": {"summary": 1}, "answer_words": {"general": 9}}, "how long answers of summary should be"),
        ({"min_tokens": 9, "max_tokens": 8}, r"min_tokens \(9\) is more than max_tokens \(8\)"),
        ({"questions": {"riddle": 1}}, "riddle"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SynthesizeConfig.parse(settings, source="test")
