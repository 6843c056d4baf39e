from longreward.utils.language import detect_language


def test_no_han_character_is_english() -> None:
    assert detect_language("Who built the bridge?") == "en"


def test_empty_text_and_digits_are_english() -> None:
    assert detect_language("") == "en"
    assert detect_language("1984: 37%") == "en"


def test_english_needs_more_than_four_letters_for_each_han_character() -> None:
    assert detect_language("abcd桥") == "zh"
    assert detect_language("abcde桥") == "en"


def test_letters_of_all_texts_added() -> None:
    assert detect_language("桥是谁修的？", "It was built by Lin.") == "zh"
    assert detect_language("桥？", "It was built by Lin.") == "en"
