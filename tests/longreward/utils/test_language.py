import pytest

from longreward.utils.language import detect_language


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (("Who built the bridge?",), "en"),
        (("",), "en"),
        (("1984: 37%",), "en"),
        (("abcd桥",), "zh"),  # English needs more than four letters for each Han character
        (("abcde桥",), "en"),
        (("桥是谁修的？", "It was built by Lin."), "zh"),  # the letters of all texts count
        (("桥？", "It was built by Lin."), "en"),
    ],
)
def test_detect_language(texts: tuple[str, ...], language: str) -> None:
    assert detect_language(*texts) == language
