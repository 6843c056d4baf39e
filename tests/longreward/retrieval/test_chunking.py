from hypothesis import given
from hypothesis import strategies as st

from longreward.retrieval.chunking import Chunk, split_text, split_tokens
from longreward.utils.token_spans import SimpleTokenizer

SIMPLE = SimpleTokenizer()


def chunk_texts(text: str, size: int) -> list[str]:
    return [text[chunk.start : chunk.end] for chunk in split_text(text, size, SIMPLE)]


def test_chunks_are_full_and_include_space_after_last_token() -> None:
    assert chunk_texts("one two  three\nfour five", 2) == ["one two  ", "three\nfour ", "five"]


def test_empty_text_has_no_chunks() -> None:
    assert chunk_texts("", 128) == []


def test_single_word_and_blank_text_are_one_chunk() -> None:
    assert chunk_texts("word", 128) == ["word"]
    assert chunk_texts(" \n ", 128) == [" \n "]


def test_leading_space_belongs_to_first_chunk() -> None:
    assert chunk_texts("  a b", 1) == ["  a ", "b"]


def test_character_of_several_tokens_not_split() -> None:
    spans = [(0, 1), (1, 2), (2, 2), (2, 2), (2, 3)]  # "a林b" in bytes
    assert split_tokens(3, spans, 2) == [Chunk(0, 1, 0, 1), Chunk(1, 2, 1, 4), Chunk(2, 3, 4, 5)]
    assert split_tokens(3, spans, 4) == [Chunk(0, 2, 0, 4), Chunk(2, 3, 4, 5)]
    assert split_tokens(3, spans, 1) == [Chunk(0, 1, 0, 1), Chunk(1, 2, 1, 4), Chunk(2, 3, 4, 5)]


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="ab 1,。林桥\n"), st.integers(1, 9))
def test_joined_chunks_equal_text_and_respect_size(text: str, size: int) -> None:
    chunks = chunk_texts(text, size)
    assert "".join(chunks) == text
    assert all(len(chunk) > 0 for chunk in chunks)
    assert all(len(SIMPLE.spans(chunk)) <= size for chunk in chunks)
    assert all(len(SIMPLE.spans(chunk)) == size for chunk in chunks[:-1])


def test_split_million_words() -> None:
    assert len(split_text("word " * 1_000_000, 128, SIMPLE)) == 7813  # 1,000,000 / 128 = 7812.5
