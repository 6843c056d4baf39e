"""Parsers of truncated replies."""

import pytest

from longreward.judge.truncation import TruncatedReply, truncated_list, truncated_tags, truncated_verdict
from longreward.reward.parsers import parse_extraction, parse_rating, parse_statements, parse_support
from longreward.reward.published_parsers import ExtractedText


def read(text: str) -> tuple[str, ...] | None:
    return parse_statements(text, "<no_statement/>")


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("It is good.\nRating: [[7]]", 7.0),  # the cut fell right behind it
        ("It is good.\n**Rating: [[7]]**\n\n[Question]\nWho founded Osten, and", 7.0),
        ("It is good.\nRating: [[7]]\n\n[Question]\nWho?\n\nRating: [[7]]\n\n[Ques", 7.0),
        ("It is good.\nRating: [[7]]\n\n[Question]\nWho?\n\nRating: [[3]]\n\n[Ques", None),  # which of them?
        ("The answer calls itself [[10]], which is not", None),  # quoted; its own verdict is cut off
        ("The answer says that it deserves the rating [[10]] for its wealth of detail.\nHowever, it", None),
        ("It is good. So I would say [[7", None),
        ("It is good.\nRating: 8\n\n[Question]\nWho", 8.0),
        ("It lacks a point:\n1.\nand th", None),  # the number of a point
        ("It is good.\nRating: 1", None),  # of 10, perhaps
        ("", None),
    ],
)
def test_truncated_rating(text: str, rating: float | None) -> None:
    result = truncated_verdict(parse_rating)(text)
    assert result == (None if rating is None else TruncatedReply(rating, is_complete=True))


def test_truncated_support_label() -> None:
    assert truncated_verdict(parse_support)("Passage 2 has it.\nSupport: [[No support]]\n\n[Stat") == TruncatedReply(
        0.0, is_complete=True
    )
    assert truncated_verdict(parse_support)("Were it [[Fully supported]], passage 2 would name") is None


def test_truncated_lists() -> None:
    statements = truncated_list(read, end_tag="statement")
    assert statements("<statement>One.</statement><Statement>Two.</Statement >\n<statement>Three is cu") == (
        TruncatedReply(("One.", "Two."), is_complete=False)
    )
    assert statements("<statement>One is cu") is None

    def points(text: str) -> TruncatedReply[ExtractedText] | None:
        return truncated_list(lambda part: parse_extraction(part, "No relevant information"))(text)

    assert points("1. Ann founded Keld.\n2. Bo owned it.\n3. The mill bur") == TruncatedReply(
        ExtractedText("1. Ann founded Keld.\n2. Bo owned it."), is_complete=False
    )
    assert points("1. Ann founded Keld and") is None


def test_truncated_tags() -> None:
    reader = truncated_tags(read)
    assert reader("<statement>One.</statement> and then") == TruncatedReply(("One.",), is_complete=True)
    assert reader("<statement>One") is None
