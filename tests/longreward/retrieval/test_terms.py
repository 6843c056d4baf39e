import doctest

import pytest

from longreward.retrieval import terms
from longreward.retrieval.terms import extract_ngrams, extract_terms, normalize, untested_scripts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Harbours' LAMPS, Holt's glass", ["the", "harbour", "lamp", "holt", "s", "glass"]),
        ("cities is bus Jones", ["city", "is", "bus", "jone"]),
        ("林桥建于1988年，桥", ["林桥", "桥建", "建于", "1988", "年", "桥"]),
        ("東京タワーへ", ["東京", "京タ", "タワ", "ワー", "ーへ"]),
        ("도서관은 큰", ["도서", "서관", "관은", "큰"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไท", "ไทย"]),
        ("हिन्दी में", ["हिन्", "न्दी", "में"]),
        ("café CAFÉ", ["café", "cafe", "café", "cafe"]),
        ("maxRetry_count HTTPServer", ["maxretry", "max", "retry", "count", "httpserver", "http", "server"]),
        ("PARIS iPhone x2 word2vec", ["paris", "iphone", "phone", "i", "x2", "word2vec"]),
        ("obser-\nvatory", ["observatory", "obser", "vatory"]),
        ("10-\n20 a -\nb", ["10", "20", "a", "b"]),
        ("", []),
        ("...", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert sorted(extract_terms(text)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat sat", ["_a_", "_cat_", "_sat_"]),
        ("Harbours", ["_harb", "harbo", "arbou", "rbour", "bour_"]),
        ("1988 x2y3z4", ["_1988_", "_x2y3z4_"]),
        ("café", ["_café", "café_", "_cafe", "cafe_"]),
        ("дома", ["_дома", "дома_"]),
        ("林桥建于1988年 ภาษา", ["林桥", "桥建", "建于", "_1988_", "年", "ภา", "าษ", "ษา"]),
        ("", []),
    ],
)
def test_ngrams_of_words(text: str, expected: list[str]) -> None:
    assert sorted(extract_ngrams(text)) == sorted(expected)


def test_doctests() -> None:
    assert doctest.testmod(terms).attempted > 0
    assert doctest.testmod(terms).failed == 0


def test_composed_and_decomposed_forms_are_equal() -> None:
    assert normalize("e\u0301") == normalize("\u00e9")
    assert extract_terms("e\u0323\u0302") == extract_terms("\u1ec7")
    assert extract_terms("\uff76\uff9e") == extract_terms("\u30ac")  # half-width kana and its sound mark
    assert extract_terms("\u1112\u1161\u11ab\u1100\u1173\u11af") == extract_terms("한글")


def test_only_scripts_with_tenth_of_letters_reported() -> None:
    assert untested_scripts(["a" * 95 + "ᎣᏏᏲᎣᏂ"]) == []
    assert untested_scripts(["a" * 50, "ᎣᏏᏲᎣᏂ" * 10 + "ⵣⵣ" * 25]) == ["CHEROKEE", "TIFINAGH"]
    assert untested_scripts([]) == []
