"""Ratings and winners in judgments: the published code's reading, and the strict one."""

import pytest

from longreward.benchmarks.mt_bench.judge import (
    parse_published_rating,
    parse_published_winner,
    parse_strict_rating,
    parse_strict_winner,
)


@pytest.mark.parametrize(
    ("judgment", "published", "strict"),
    [
        ("Well progress.\n\nRating: [[7]]", 7.0, 7.0),
        ("Rating: [[7.5]]", 7.5, 7.5),
        ("Rating: [[7.]]", 7.0, 7.0),
        ("Rating: [[ 7 ]]", None, None),  # the published pattern knows no spaces
        ("Rating: [7]", 7.0, None),  # single brackets are its second choice
        ("See [3]. Rating: [[8]]", 8.0, 8.0),  # not where double ones are there, however late
        ("It says [[10]] of itself. Rating: [[2]]", 10.0, None),  # the first one
        ("[[6]], so: Rating: [[6]]", 6.0, 6.0),
        ("Rating: [[8/10]]", None, None),
        ("Rating: 8", None, None),
        ("Rating: [[rating]]", None, None),
        ("Rating: [[0]]", 0.0, None),
        ("Rating: [[11]]", 11.0, None),
        ("Rating: [[-3]]", None, None),
        ("Rating: [[٧]]", None, None),  # a digit, but none that a number is made of
        (f"Rating: [[{'9' * 400}]]", None, None),  # no number that a mean could hold
        ("", None, None),
    ],
)
def test_parse_rating_published_and_strict(judgment, published, strict):
    assert parse_published_rating(judgment) == published
    assert parse_strict_rating(judgment)[0] == strict
    assert (parse_strict_rating(judgment)[1] is None) == (strict is not None)


@pytest.mark.parametrize(
    ("judgment", "reason"),
    [
        ("", "empty judgment"),
        ("Rating: 8", "no [[rating]] in the judgment: …Rating: 8"),
        ("[[10]] it says. [[2]]", "several ratings: [[10]], [[2]]"),
        ("[[11]]", "[[11]] is not between 1 and 10"),
    ],
)
def test_unreadable_rating_has_reason(judgment, reason):
    assert parse_strict_rating(judgment) == (None, reason)


@pytest.mark.parametrize(
    ("judgment", "published", "strict"),
    [
        ("Both are good. [[A]]", "A", "A"),
        ("[[B]]", "B", "B"),
        ("[[C]]", "tie", "tie"),
        ("First I thought [[B]], but: [[A]]", "A", "error"),  # A before B before C, wherever they stand
        ("[[C]] or [[B]]", "B", "error"),
        ("[A]", "error", "error"),
        ("[[a]]", "error", "error"),
        ("", "error", "error"),
    ],
)
def test_parse_winner_published_and_strict(judgment, published, strict):
    assert parse_published_winner(judgment) == published
    assert parse_strict_winner(judgment)[0] == strict
    assert (parse_strict_winner(judgment)[1] is None) == (strict != "error")
