from hypothesis import given
from hypothesis import strategies as st

from longreward.retrieval.chunking import Chunk, split_text, split_tokens
from longreward.utils.token_spans import SimpleTokenizer

SIMPLE = SimpleTokenizer()


def slices(text: str, size: int) -> list[str]:
    return [text[c.start : c.end] for c in split_text(text, size, SIMPLE)]


def test_slices_are_full_and_keep_the_space_after_their_last_token() -> None:
    assert slices("one two  three\nfour five", 2) == ["one two  ", "three\nfour ", "five"]


def test_an_empty_text_has_no_slice() -> None:
    assert slices("", 128) == []


def test_a_text_of_one_word_or_of_spaces_is_one_slice() -> None:
    assert slices("word", 128) == ["word"]
    assert slices(" \n ", 128) == [" \n "]


def test_space_before_the_first_token_belongs_to_the_first_slice() -> None:
    assert slices("  a b", 1) == ["  a ", "b"]


def test_a_character_of_several_tokens_stays_whole() -> None:
    spans = [(0, 1), (1, 2), (2, 2), (2, 2), (2, 3)]  # "a林b" in bytes
    assert split_tokens(3, spans, 2) == [Chunk(0, 1, 0, 1), Chunk(1, 2, 1, 4), Chunk(2, 3, 4, 5)]
    assert split_tokens(3, spans, 4) == [Chunk(0, 2, 0, 4), Chunk(2, 3, 4, 5)]
    assert split_tokens(3, spans, 1) == [Chunk(0, 1, 0, 1), Chunk(1, 2, 1, 4), Chunk(2, 3, 4, 5)]


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="ab 1,。林桥\n"), st.integers(1, 9))
def test_slices_joined_are_the_text_and_none_exceeds_the_size(text: str, size: int) -> None:
    parts = slices(text, size)
    assert "".join(parts) == text
    assert all(len(part) > 0 for part in parts)
    assert all(len(SIMPLE.spans(part)) <= size for part in parts)
    assert all(len(SIMPLE.spans(part)) == size for part in parts[:-1])


def test_a_million_words_are_cut() -> None:
    assert len(split_text("word " * 1_000_000, 128, SIMPLE)) == 7813  # 1,000,000 / 128 = 7812.5
