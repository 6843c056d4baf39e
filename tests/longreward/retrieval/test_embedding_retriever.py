"""Ranking by embeddings from a real server, each text embedded once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import JudgeProtocolError, RequestRefused
from longreward.judge.ledger import Ledger
from longreward.retrieval import Retriever, RetrieverConfig, open_retriever
from longreward.retrieval.embedding_cache import VectorLedger

CHUNKS = ["The lamp was lit.", "A keeper kept bees and bees.", "The harbour froze in winter.", "A mill and a lamp."]


@asynccontextmanager
async def open_for_test(server: Any, *, ledger: Path | None = None, **fields: Any) -> AsyncIterator[Retriever]:
    config = RetrieverConfig(**{"kind": "http", "base_url": server.url, "model": "words", "max_retries": 0} | fields)
    retriever = open_retriever(config, ledger=ledger)
    try:
        yield retriever
    finally:
        await retriever.close()


async def search(server: Any, *queries: str, k: int = 1, chunks: list[str] = CHUNKS, **fields: Any) -> list[list[int]]:
    async with open_for_test(server, **fields) as retriever:
        return await retriever.index(chunks).search(queries, k)


async def test_most_similar_chunks_returned_in_document_order(embedding_server: Any) -> None:
    # "mill lamp": cosine 1 with chunk 3 (mill, lamp), 0.71 with chunk 0 (lamp), 0 with the others
    # "keeper bees": 3 / (√2 × √5) = 0.95 with chunk 1 (keeper, bees, bees)
    assert await search(embedding_server, "mill lamp", "keeper bees", k=2) == [[0, 3], [0, 1]]
    assert await search(embedding_server, "winter", k=1) == [[2]]


async def test_equal_similarities_ranked_by_position(embedding_server: Any) -> None:
    chunks = ["bees a", "bees b", "lamp", "bees c", "bees d"]
    assert await search(embedding_server, "bees", "nothing known", "", k=2, chunks=chunks) == [[0, 1], [0, 1], [0, 1]]


async def test_blank_chunks_not_sent_and_rank_last(embedding_server: Any) -> None:
    assert await search(embedding_server, "bees", k=1, chunks=["\n\n", "bees"]) == [[1]]
    assert await search(embedding_server, "bees", k=1, chunks=["", " "]) == [[0]]
    assert embedding_server.texts == ["bees", "bees"]  # chunk and query alike are one text; a ledger for each search


async def test_no_call_made_for_fewer_than_k_chunks(embedding_server: Any) -> None:
    assert await search(embedding_server, "bees", k=4) == [[0, 1, 2, 3]]
    assert await search(embedding_server, "bees", k=5, chunks=[]) == [[]]
    assert embedding_server.requests == []


async def test_each_text_embedded_once(embedding_server: Any) -> None:
    embedding_server.latency_s = 0.1
    async with open_for_test(embedding_server) as retriever:
        index = retriever.index(CHUNKS)
        searches = [index.search(["the mill", "the mill", "the bees"], 1) for _ in range(5)]
        assert await asyncio.gather(*searches) == [[[3], [3], [1]]] * 5
        await index.search(["the mill", "a school"], 1)
        await retriever.index([*CHUNKS[::-1], "One chunk more."]).search(["the mill"], 1)
        assert retriever.metrics() == {
            "embeddings/calls": 3,
            "embeddings/texts": 8,
            "embeddings/ledger_hits": 6,  # the mill; then the mill and four chunks
            "embeddings/shared": 24,  # four later searches wait for the six texts of the first
        }
    assert sorted(embedding_server.texts) == sorted([*CHUNKS, "the mill", "the bees", "a school", "One chunk more."])


async def test_later_run_reads_embeddings_from_ledger(embedding_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()  # as a judge creates it
    first = await search(embedding_server, "mill lamp", k=2, ledger=path)
    embedding_server.respond = lambda request: (500, "down")
    assert await search(embedding_server, "mill lamp", k=2, ledger=path) == first
    assert len(embedding_server.requests) == 1
    with VectorLedger(path) as vectors, Ledger(path) as ledger:
        assert vectors.count() == 5
        assert ledger.totals().exchanges == 0


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"revision": "2"},
        {"dimensions": 9},
        {"extra_body": {"task": "retrieval"}},
        {"query_prefix": "query: "},
    ],
    ids=str,
)
async def test_settings_that_affect_vectors_are_part_of_key(
    embedding_server: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "ledger.sqlite"
    await search(embedding_server, "mill", ledger=path)
    await search(embedding_server, "mill", ledger=path, **change)
    assert embedding_server.texts[5:] == (["query: mill"] if "query_prefix" in change else [*CHUNKS, "mill"])


async def test_request_contains_prefixes_dimensions_and_extra_fields(embedding_server: Any) -> None:
    fields = {"query_prefix": "query: ", "passage_prefix": "passage: ", "max_characters": 8, "dimensions": 7}
    await search(embedding_server, "The bees were kept.", k=1, extra_body={"encoding_format": None, "n": 1}, **fields)
    assert embedding_server.requests == [
        {
            "model": "words",
            "dimensions": 7,
            "n": 1,
            "input": [
                "passage: The lamp",
                "passage: A keeper",
                "passage: The harb",
                "passage: A mill a",
                "query: The bees",
            ],
        }
    ]


async def test_batch_sizes_and_concurrency_limited(embedding_server: Any) -> None:
    embedding_server.latency_s = 0.05
    chunks = [f"chunk {n:02}" for n in range(20)]  # of 8 characters
    await search(embedding_server, "bees", chunks=chunks, batch_size=4, max_concurrency=3)
    assert sorted(len(request["input"]) for request in embedding_server.requests) == [1, 4, 4, 4, 4, 4]
    assert embedding_server.peak == 3
    embedding_server.requests.clear()
    await search(embedding_server, "bees", chunks=[*chunks, "x" * 100], batch_characters=20)
    assert sorted(len(request["input"]) for request in embedding_server.requests) == [1, 1] + [2] * 10


async def test_refused_text_isolated_and_others_embedded(
    embedding_server: Any,
) -> None:
    def respond(request: dict[str, Any]) -> tuple[int, Any] | None:
        long = any("school" in text for text in request["input"])
        return (400, {"error": {"message": "maximum context length is 8 tokens"}}) if long else None

    embedding_server.respond = respond
    chunks = [*CHUNKS, "A school, much too long.", "And bees.", "And a mill."]
    async with open_for_test(embedding_server) as retriever:
        for _ in range(2):
            with pytest.raises(RequestRefused) as caught:
                await retriever.index(chunks).search(["bees"], 1)
            assert "maximum context length is 8 tokens" in str(caught.value)
            assert "'A school, much too long.', 24 characters" in str(caught.value)
        assert len(embedding_server.requests) == 7  # 8 texts, 4 + 4, 2 + 2, 1 + 1
        assert await retriever.index(chunks[:4] + chunks[5:]).search(["bees"], 1) == [[4]]
        assert len(embedding_server.requests) == 7


async def test_cancelled_search_does_not_affect_others(embedding_server: Any) -> None:
    embedding_server.latency_s = 0.2
    async with open_for_test(embedding_server) as retriever:
        index = retriever.index(CHUNKS)
        cancelled, waiting = (asyncio.create_task(index.search(["bees"], 1)) for _ in range(2))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        assert await waiting == [[1]]
    assert len(embedding_server.requests) == 1


async def test_close_cancels_running_calls(embedding_server: Any) -> None:
    embedding_server.latency_s = 1
    async with open_for_test(embedding_server) as retriever:
        search = asyncio.create_task(retriever.index(CHUNKS).search(["bees"], 1))
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await search
    assert asyncio.all_tasks() == {asyncio.current_task()}


def rows(*vectors: Any) -> Callable[[dict[str, Any]], tuple[int, Any]]:
    return lambda request: (200, {"data": [{"index": n, "embedding": one} for n, one in enumerate(vectors)]})


@pytest.mark.parametrize(
    ("respond", "expected"),
    [
        (rows([1.0], [2.0]), "2 vectors for 3 texts"),
        (rows([1.0, 2.0], [1.0], [1.0]), "other than vectors of one length"),
        (rows([1.0], ["a"], [1.0]), "other than vectors of one length"),
        (rows([], [], []), "embeddings protocol"),
        (rows([1.0], [float("nan")], [1.0]), "NaN"),
        (rows([1.0], [None], [1.0]), "NaN"),
        (rows([1.0], [1e300], [1.0]), "infinite"),
        (lambda request: (200, "<html>Welcome</html>"), "score.retriever.base_url end in /v1?"),
        (lambda request: (200, {"choices": []}), "embeddings protocol"),
        (lambda request: (200, {"data": [[1.0], [1.0], [1.0]]}), "embeddings protocol"),
    ],
)
async def test_invalid_responses_are_protocol_errors(embedding_server: Any, respond: Any, expected: str) -> None:
    embedding_server.respond = respond
    with pytest.raises(JudgeProtocolError, match="embeddings of 'words' at http") as caught:
        await search(embedding_server, "bees", chunks=["a", "b"])
    assert expected in str(caught.value)


async def test_vectors_of_different_lengths_are_error(embedding_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    embedding_server.respond = lambda request: rows(*[[1.0, 2.0]] * len(request["input"]))(request)
    with pytest.raises(JudgeProtocolError, match=r"vectors of 2 dimensions.*have 9"):
        await search(embedding_server, "bees", dimensions=9)
    await search(embedding_server, "bees", ledger=path)
    embedding_server.respond = lambda request: None
    with pytest.raises(JudgeProtocolError, match=r"vectors of 9 dimensions.*have 2.*score\.retriever\.revision"):
        await search(embedding_server, "lamp", ledger=path)


async def test_settings_for_score_records(embedding_server: Any) -> None:
    async with open_for_test(embedding_server, revision="3", query_prefix="query: ", batch_size=5) as retriever:
        assert retriever.settings() == {
            "retriever": "http",
            "retriever_model": "words",
            "retriever_revision": "3",
            "query_prefix": "query: ",
        }
