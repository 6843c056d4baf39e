import logging
import random
import time

import pytest

from longreward.retrieval import Bm25Retriever
from longreward.retrieval.bm25 import terms

CHUNKS = [
    "The lighthouse on Varn Point was first lit in 1874.",
    "Its keeper, Anders Holt, kept bees.",
    "In 1902 a paraffin lamp replaced the oil lamp.",
    "The harbour froze in the winter of 1929.",
]


async def test_the_nearest_chunks_come_in_document_order() -> None:
    index = Bm25Retriever().index(CHUNKS)
    assert await index.search(["The paraffin lamp of 1902 was lit on Varn Point."], 2) == [[0, 2]]
    assert await index.search(["Anders Holt was a keeper of bees."], 1) == [[1]]


async def test_plurals_genitives_and_capitals_do_not_part_words() -> None:
    assert list(terms("The Harbours' LAMPS, Holt's glass")) == ["the", "harbour", "lamp", "holt", "s", "glass"]
    assert await Bm25Retriever().index(CHUNKS).search(["HARBOURS"], 1) == [[3]]


async def test_chinese_is_compared_by_pairs_of_characters() -> None:
    assert list(terms("林桥建于1988年，桥")) == ["林桥", "桥建", "建于", "1988", "年", "桥"]
    chunks = ["林桥于1988年修好。", "洪水使工程延误。", "市长出席了典礼。"]
    assert await Bm25Retriever().index(chunks).search(["工程因为洪水而延误"], 1) == [[1]]


async def test_fewer_chunks_than_asked_for_are_all_given() -> None:
    assert await Bm25Retriever().index(CHUNKS).search(["bees"], 5) == [[0, 1, 2, 3]]


async def test_no_chunk_gives_none() -> None:
    assert await Bm25Retriever().index([]).search(["bees"], 5) == [[]]


async def test_a_statement_of_unknown_words_gets_the_first_chunks() -> None:
    assert await Bm25Retriever().index(CHUNKS).search(["zzz qqq", "", "?!"], 2) == [[0, 1], [0, 1], [0, 1]]


async def test_chunks_without_a_word_can_be_searched() -> None:
    assert await Bm25Retriever().index(["...", "!!!", "???"]).search(["bees"], 2) == [[0, 1]]


async def test_equal_scores_go_by_position() -> None:
    assert await Bm25Retriever().index(["bees here", "bees here", "bees here", "none"]).search(["bees"], 2) == [[0, 1]]


async def test_nothing_is_printed_or_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Bm25Retriever().index(CHUNKS)
    with caplog.at_level(logging.INFO):
        await Bm25Retriever().index(CHUNKS).search(["bees"], 2)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


async def test_two_hundred_statements_over_a_hundred_thousand_tokens_take_a_moment() -> None:
    words = [f"word{number}" for number in range(5000)]
    rng = random.Random(0)
    chunks = [" ".join(rng.choices(words, k=128)) for _ in range(782)]
    queries = [" ".join(rng.choices(words, k=20)) for _ in range(200)]
    Bm25Retriever().index(CHUNKS)  # the import is not counted
    started = time.perf_counter()
    found = await Bm25Retriever().index(chunks).search(queries, 5)
    assert time.perf_counter() - started < 3
    assert all(len(places) == 5 for places in found)
