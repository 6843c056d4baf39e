import pytest

from longreward.reward.reading import Found, read_extraction, read_rating, read_statements, read_support


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("A fair answer. Rating: [[7]]", 7.0),
        ("评分：[[ 8.5 ]]", 8.5),
        ("First I thought [[3]], in the end [[9]]", 9.0),
        ("It boasts of [[10]] but is empty. Rating: [[0]]", 0.0),
        ("[[10]]", 10.0),
        ("Rating: [[11]]", None),
        ("A good [[5]], or rather [[-1]]", None),
        ("Rating: 7", None),
        ("Rating: [7]", None),
        ("Rating: [[good]]", None),
        ("", None),
    ],
)
def test_the_last_bracket_with_a_number_is_the_rating(text: str, rating: float | None) -> None:
    assert read_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "support"),
    [
        ("Support: [[Fully supported]]", 1.0),
        ("评分: [[Partially Supported]]", 0.5),
        ("[[No Support]]", 0.0),
        ("The response says [[Fully supported]]. Support: [[No support]]", 0.0),
        ("[[fully supported/partially supported]]", 1.0),
        ("[[Unclear]]", 0.0),
        ("[[Not fully supported]]", 0.0),
        ("[[Fully supported]], see [[2]]", 1.0),
        ("[[ ]]", None),
        ("Fully supported", None),
        ("", None),
    ],
)
def test_the_last_bracket_of_words_is_the_support(text: str, support: float | None) -> None:
    assert read_support(text) == support


def test_statements_are_read_in_order_and_without_blanks() -> None:
    text = "<statement> One. </statement>\n<statement></statement>\n<statement>Two\nlines.</statement><statement>cut"
    assert read_statements(text, "<no_statement/>") == ("One.", "Two\nlines.")


def test_the_marker_means_no_statement_and_silence_means_nothing() -> None:
    assert read_statements("<no_statement/>", "<no_statement/>") == ()
    assert read_statements("There is none.", "<no_statement/>") is None
    assert read_statements("<no_statement/>", None) is None
    assert read_statements("<no_statement/> <statement>Yet one.</statement>", "<no_statement/>") == ("Yet one.",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1. Keld was founded in 1905.\n", Found("1. Keld was founded in 1905.")),
        ("No relevant information", Found(None)),
        (' "no relevant information." ', Found(None)),
        ("1. No relevant information", Found(None)),
        ("No relevant information about bees in this part.", Found(None)),
        ("No relevant information on bees, but:\n1. Wasps.", Found("No relevant information on bees, but:\n1. Wasps.")),
        ("  \n", None),
    ],
)
def test_an_extraction_is_a_text_or_nothing_relevant(text: str, found: Found | None) -> None:
    assert read_extraction(text, "No relevant information") == found
