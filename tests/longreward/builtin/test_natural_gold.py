"""The gold measures of free text, worked out by hand on one small document."""

import pytest

from longreward.builtin.gold import GoldMeasures
from longreward.builtin.mentions import find_figures, find_mentions, find_names, split_sentences
from longreward.builtin.natural_documents import NaturalFact
from longreward.builtin.natural_gold import NaturalGoldRow, measure_natural

TEXT = """The footbridge was planned for 2 April, but a flood in the cellar held up the work, and it opened on 3 May.
Mara Voss, who heads the council, cut the ribbon at 7:40. The drawings are by Ivo Lang. At North Bank 38 people came, at
South Bank 1,250. The budget was £900; the final bill was £1,400."""
OPENED = NaturalFact(
    "footbridge", "opening", "3 May", "date", "It opened on 3 May.", wrong=("2 April",), cues=("open",)
)
DESIGNER = NaturalFact(
    "footbridge",
    "designer",
    "Ivo Lang",
    "person",
    "Ivo Lang designed it.",
    ("Lang", "Ivo"),
    ("Mara Voss",),
    ("design",),
)
CAUSE = NaturalFact(
    "footbridge", "cause", "a flood in the cellar", "phrase", "A flood in the cellar held it up.", ("flood",)
)
NORTH = NaturalFact("North Bank", "visitors", "38", "number", "38 came.", (), ("1,250",), ("north",), ("north bank",))
SOUTH = NaturalFact(
    "South Bank", "visitors", "1,250", "number", "1,250 came.", (), ("38",), ("south",), ("south bank",)
)
BUDGET = NaturalFact("bridge", "budget", "£900", "number", "The budget was £900.", (), ("£1,400",), ("budget",))
COST = NaturalFact("bridge", "cost", "£1,400", "number", "It cost £1,400.", (), ("£900",), ("cost", "bill"))
FACTS = (OPENED, DESIGNER, CAUSE, NORTH, SOUTH, BUDGET, COST)


def row(*facts: NaturalFact, kind: str = "single", query: str = "What about the footbridge?") -> NaturalGoldRow:
    return NaturalGoldRow(0, kind, "news_report", query, "", facts, FACTS, ("Mara Voss", "Ivo Lang"), TEXT)


@pytest.mark.parametrize(
    "response",
    [
        "The footbridge opened on 3 May.",
        "3 May",
        "It was opened on May 3rd by Mara Voss.",
        "On the 3rd of May, people crossed it.",
        "The opening was moved from 2 April to 3 May.",
        "It was planned for 2 April. It opened on 3 May.",
    ],
)
def test_date_in_any_form_is_recalled(response: str) -> None:
    measures = measure_natural(response, row(OPENED))
    assert (measures.recall, measures.unsupported, measures.exact) == (1.0, 0.0, True)


@pytest.mark.parametrize(
    "response",
    [
        "The footbridge opened on 2 April.",
        "2 April",
        "It did not open on 3 May.",
        "It opened on 3 May or 2 April.",
        "It opened on 3 May and 2 April.",
        "It opened on 3 June.",
        "It opened in spring.",
        "The text gives a date.",
        "",
    ],
)
def test_superseded_negated_and_vague_dates_are_not_recalled(response: str) -> None:
    assert measure_natural(response, row(OPENED)).recall == 0.0
    assert not measure_natural(response, row(OPENED)).exact


@pytest.mark.parametrize("response", ["The footbridge opened on 2 April.", "2 April", "It opened on 3 June.", ""])
def test_wrong_dates_are_unsupported(response: str) -> None:
    assert measure_natural(response, row(OPENED)).unsupported == 1.0


def test_names_in_any_form_and_wrong_names() -> None:
    assert measure_natural("Lang designed it.", row(DESIGNER)).exact
    assert measure_natural("It was designed by Mr Lang.", row(DESIGNER)).exact
    assert measure_natural("Mara Voss designed it.", row(DESIGNER)) == GoldMeasures(0.0, 1.0, exact=False, unasked=0.0)
    assert measure_natural("It was designed by Mara Lang.", row(DESIGNER)).unsupported == 1.0
    assert measure_natural("It was designed by Ivo Lang and Peter Pan.", row(DESIGNER)).unsupported == 1.0


def test_last_name_with_first_name_of_someone_else_is_another_person() -> None:
    assert measure_natural("Mara Lang drew it.", row(DESIGNER)).recall == 0.0
    assert measure_natural("Ivo Voss drew it.", row(DESIGNER)).recall == 0.0


def test_clause_with_wrong_value_after_right_one_is_wrong() -> None:
    measures = measure_natural("It opened on 3 May, and the opening was on 2 April.", row(OPENED))
    assert (measures.recall, measures.unsupported) == (0.0, 1.0)
    assert measure_natural("It was to be on 2 April, but it opened on 3 May.", row(OPENED)).exact


def test_phrases_match_inflected_words() -> None:
    assert measure_natural("The cellar had flooded.", row(CAUSE)).recall == 1.0
    assert measure_natural("There was a fire.", row(CAUSE)).recall == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "38 people came at North Bank and 1,250 at South Bank.",
        "At North Bank and South Bank, 38 and 1250 people came.",
        "North Bank had thirty-eight visitors. South Bank had 1,250.",
        "38 and 1,250.",
    ],
)
def test_two_values_belong_to_entities(response: str) -> None:
    assert measure_natural(response, row(NORTH, SOUTH)).exact, response


@pytest.mark.parametrize(
    "response",
    [
        "1,250 people came at North Bank and 38 at South Bank.",
        "At North Bank and South Bank, 1250 and 38 people came.",
        "North Bank had 1,250 visitors. South Bank had thirty-eight.",
    ],
)
def test_exchanged_values_are_wrong(response: str) -> None:
    measures = measure_natural(response, row(NORTH, SOUTH))
    assert (measures.recall, measures.unsupported, measures.exact) == (0.0, 1.0, False)


def test_one_value_for_both_entities_is_half_wrong() -> None:
    measures = measure_natural("At North Bank 38 people came, and at South Bank 38 people came.", row(NORTH, SOUTH))
    assert (measures.recall, measures.unsupported) == (0.5, 1.0)


def test_one_of_two_facts_is_half_of_recall() -> None:
    assert measure_natural("At North Bank, 38 people came.", row(NORTH, SOUTH)).recall == 0.5
    wrong_sum = measure_natural("The budget was £900 and the bill was £1,700.", row(BUDGET, COST))
    assert (wrong_sum.recall, wrong_sum.unsupported) == (0.5, 1.0)


def test_true_value_of_another_fact_is_no_contradiction() -> None:
    assert measure_natural("The budget was £900. The bridge cost £1,400.", row(COST)).exact
    assert measure_natural("The bridge cost £900.", row(COST)).unsupported == 1.0


def test_invented_number_in_second_sentence_is_half_of_claims() -> None:
    measures = measure_natural("It opened on 3 May. About 77 dogs barked. It was nice.", row(OPENED))
    assert measures == GoldMeasures(1.0, 0.5, exact=False, unasked=0.0)
    repeated = measure_natural("It opened on 3 May. " * 9 + "About 77 dogs barked.", row(OPENED))
    assert repeated.unsupported == 0.5


def test_echo_of_question_is_no_claim() -> None:
    asked = row(NORTH, query="Did more people come at North Bank?")
    assert measure_natural("Did more people come at North Bank?", asked) == GoldMeasures(0.0, 1.0, False, 0.0)
    assert measure_natural("Did 38 people come? At North Bank:", asked).recall == 0.0
    assert measure_natural("Mara Voss: Who counted 38 people at North Bank?", asked).recall == 0.0
    assert measure_natural("At North Bank 38 people came, and how many at South Bank?", asked).recall == 1.0
    assert measure_natural("The question is about North Bank. At North Bank, 38 people came.", asked).exact


def test_answer_with_figure_of_another_kind_is_wrong() -> None:
    assert measure_natural("The answer is: 3 May.", row(NORTH)).unsupported == 1.0
    assert measure_natural("At North Bank 38 came. They came at 7:40.", row(NORTH)).unsupported == 0.0


def test_item_that_does_not_belong_to_list_is_wrong() -> None:
    asked = row(NORTH, SOUTH, OPENED, kind="list")
    assert measure_natural("38, 1,250 and 3 May.", asked).exact
    assert measure_natural("38, 1,250, 2 April and 3 May.", asked).unsupported == 1.0
    assert (
        measure_natural("38 and 1,250 came, and it opened on 3 May; 2 April was planned first.", row(OPENED)).recall
        == 1
    )


def test_two_values_joined_by_or_are_unsupported() -> None:
    assert measure_natural("It opened on 3 May or 2 April.", row(OPENED)).unsupported == 1.0


def test_mentions_of_figures() -> None:
    text = "On the 14th of May at 7.40 pm, one hundred and twenty of 1,250 guests paid £4,200.50; two left by 19:05."
    assert [(mention.kind, mention.value) for mention in find_figures(text)] == [
        ("date", "14 may"),
        ("time", "7:40"),
        ("number", "120"),
        ("number", "1250"),
        ("number", "4200.50"),
        ("time", "7:05"),
    ]


def test_mentions_of_names() -> None:
    assert find_names("Harold Finch and Ms Voss saw Anna's dog in Mill Pond.") == [
        ["harold", "finch"],
        ["voss"],
        ["anna"],
        ["mill", "pond"],
    ]
    assert find_names("Overall, the dog slept in May.") == []
    assert ("name", "voss") in find_mentions("She knew Voss.")


def test_sentences_and_list_items() -> None:
    assert split_sentences("1. Mr. Smith went. 2. Two cats!\n- A dog\n3) b") == [
        "Mr. Smith went.",
        "Two cats!",
        "A dog",
        "b",
    ]
