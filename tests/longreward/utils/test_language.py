from longreward.utils.language import language_of


def test_letters_without_a_han_character_are_english() -> None:
    assert language_of("Who built the bridge?") == "en"


def test_nothing_and_figures_alone_count_as_english() -> None:
    assert language_of("") == "en"
    assert language_of("1984: 37%") == "en"


def test_english_needs_more_than_four_letters_for_each_han_character() -> None:
    assert language_of("abcd桥") == "zh"
    assert language_of("abcde桥") == "en"


def test_texts_are_counted_together() -> None:
    assert language_of("桥是谁修的？", "It was built by Lin.") == "zh"
    assert language_of("桥？", "It was built by Lin.") == "en"
