"""The gold measures, worked out by hand on one small document."""

import pytest

from longreward.builtin.gold import GoldMeasures, GoldRow, measure_against_gold
from longreward.builtin.grammar import Fact

BIRTH = Fact("Mara Voss", "birthplace", "Kelden")
BOOK = Fact("Mara Voss", "book", "Silent Harbour")
TEACHER = Fact("Mara Voss", "teacher", "Ada Brook")
PUPILS = Fact("Ivo Lang", "pupils", "198")
MILL = Fact("Ivo Lang", "building", "stone mill")
FOND = Fact("Ivo Lang", "liking", "strong tea")
ROW = GoldRow(
    idx=1,
    answer="Mara Voss was born in Kelden. Ivo Lang built the stone mill.",
    facts=(BIRTH, MILL),
    document_facts=(BIRTH, BOOK, TEACHER, PUPILS, MILL, FOND),
    scenery=("A cat slept on the table during most meetings.",),
)


def test_gold_answer_is_exact() -> None:
    assert measure_against_gold(ROW.answer, ROW) == GoldMeasures(recall=1.0, unsupported=0.0, exact=True, unasked=0.0)


def test_empty_response_has_no_recall_and_is_unsupported() -> None:
    assert measure_against_gold("", ROW) == GoldMeasures(recall=0.0, unsupported=1.0, exact=False, unasked=0.0)
    assert measure_against_gold(" . ", ROW) == GoldMeasures(recall=0.0, unsupported=1.0, exact=False, unasked=0.0)


def test_missing_fact_halves_recall_only() -> None:
    assert measure_against_gold("Mara Voss was born in Kelden.", ROW) == GoldMeasures(
        0.5, 0.0, exact=False, unasked=0.0
    )


def test_wrong_value_unsupported() -> None:
    measures = measure_against_gold("Mara Voss was born in Tarn. Ivo Lang built the stone mill.", ROW)
    assert measures == GoldMeasures(recall=0.5, unsupported=0.5, exact=False, unasked=0.0)


def test_value_of_other_person_is_wrong() -> None:
    assert measure_against_gold("Ivo Lang was born in Kelden. Mara Voss built the stone mill.", ROW).unsupported == 1.0


def test_half_value_is_wrong() -> None:
    assert measure_against_gold("Ivo Lang built the mill.", ROW).recall == 0.0


def test_fabricated_sentence_makes_answer_inexact() -> None:
    measures = measure_against_gold(ROW.answer + " Ivo Lang also won a famous prize in 1904.", ROW)
    assert measures == GoldMeasures(recall=1.0, unsupported=pytest.approx(1 / 3), exact=False, unasked=0.0)


def test_true_sentence_outside_question_supported_and_counted() -> None:
    measures = measure_against_gold(ROW.answer + " Ivo Lang trained 198 pupils. Ivo Lang was fond of strong tea.", ROW)
    assert measures == GoldMeasures(recall=1.0, unsupported=0.0, exact=True, unasked=0.5)
    scenery = measure_against_gold("A cat slept on the table during most meetings.", ROW)
    assert scenery == GoldMeasures(recall=0.0, unsupported=0.0, exact=False, unasked=1.0)


@pytest.mark.parametrize(
    "response",
    [
        "Voss was born in Kelden. Lang built the stone mill.",
        "Mara Voss was born in Kelden, and Ivo Lang built the stone mill.",
        "By all accounts, Mara Voss was born in Kelden. The stone mill was built by Ivo Lang after a hard winter.",
        "mara voss was born in kelden; ivo lang built a stone mill",
    ],
)
def test_small_rewordings_supported(response: str) -> None:
    measures = measure_against_gold(response.replace("; ", ".\n"), ROW)
    assert (measures.recall, measures.unsupported, measures.exact) == (1.0, 0.0, True)


@pytest.mark.parametrize(
    "response",
    [
        "Mara Voss was born in Kelden or Tarn.",
        "Mara Voss was not born in Kelden.",
        "Mara Voss was born in Kelden. Mara Voss was born in Tarn.",
        "Mara Voss was born in Kelden and died young.",
        "Someone was born in Kelden.",
        "Kelden.",
        "Kelden stone mill Mara Voss Ivo Lang",
    ],
)
def test_hedges_negations_and_fragments_gain_no_recall(response: str) -> None:
    measures = measure_against_gold(response, ROW)
    assert measures.recall == 0.0
    assert measures.unsupported > 0.0


def test_repeated_true_clause_does_not_dilute_fabricated_one() -> None:
    once = measure_against_gold("Mara Voss was born in Kelden. Ivo Lang also owned 23 fast horses.", ROW)
    often = measure_against_gold("Mara Voss was born in Kelden. " * 9 + "Ivo Lang also owned 23 fast horses.", ROW)
    assert once.unsupported == often.unsupported == 0.5


def test_reversed_relation_is_wrong() -> None:
    assert measure_against_gold("Mara Voss was taught by Ada Brook.", ROW).unsupported == 0.0
    assert measure_against_gold("Ada Brook taught Mara Voss.", ROW).unsupported == 0.0
    assert measure_against_gold("Mara Voss taught Ada Brook.", ROW).unsupported == 1.0
    assert measure_against_gold("Ada Brook was taught by Mara Voss.", ROW).unsupported == 1.0
