"""Tests of Krippendorff's alpha against his worked examples."""

import pytest

from longreward.evaluation.reliability import Level, Reliability

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): the values of example A (two observers, binary)
# and of example C (four observers, missing values), one row for each observer.
BINARY = ["0100000010", "1110010000"]
FOUR_OBSERVERS = ["123321412***", "1233224125*3", "*3332342251*", "12332441251*"]


def reliability(rows: list[str], level: Level) -> Reliability:
    collected = Reliability(level)
    for unit, values in enumerate(zip(*rows, strict=True)):
        collected.add(str(unit), [float(value) for value in values if value != "*"])
    return collected


@pytest.mark.parametrize(
    ("rows", "level", "published"),
    [(BINARY, "nominal", 0.095), (FOUR_OBSERVERS, "nominal", 0.743), (FOUR_OBSERVERS, "interval", 0.849)],
    ids=["A-nominal", "C-nominal", "C-interval"],
)
def test_alpha_is_that_of_the_worked_examples(rows: list[str], level: Level, published: float) -> None:
    alpha = reliability(rows, level).alpha()

    assert alpha is not None
    assert alpha.value == pytest.approx(published, abs=0.0005)
    assert alpha.low < alpha.value < alpha.high <= 1


def test_the_interval_counts_documents_not_units() -> None:
    few, many = Reliability("interval"), Reliability("interval")
    for unit in range(60):
        document = unit % 4
        values = [float(document), [0.0, 1.0, 3.0, 2.0][document]]  # the observers agree about two documents of four
        few.add(str(document), values)
        many.add(str(unit), values)
    by_document, by_unit = few.alpha(), many.alpha()

    assert by_document is not None
    assert by_unit is not None
    assert by_document.value == pytest.approx(by_unit.value)
    assert (by_document.documents, by_unit.documents) == (4, 60)
    assert by_document.high - by_document.low > by_unit.high - by_unit.low


def test_raters_that_always_give_the_same_value_have_no_alpha() -> None:
    collected = Reliability("nominal")
    assert collected.alpha() is None
    for unit in range(5):
        collected.add(str(unit), [1.0, 1.0])
        collected.add(str(unit), [0.0])  # one rater alone agrees with nobody
    assert collected.alpha() is None
    collected.add("other", [0.0, 0.0])

    alpha = collected.alpha()

    assert alpha is not None
    assert (alpha.value, alpha.high) == (1.0, 1.0)
    assert alpha.low < 1  # a further document may differ
