"""Fusion of BM25 and embeddings from a real server, with rankings computed by hand."""

from pathlib import Path
from typing import Any

import pytest

from longreward.errors import ConfigError, RequestRefused
from longreward.retrieval import Retriever, RetrieverConfig, open_retriever
from longreward.reward import ScoreConfig

CHUNKS = ["bees mill", "X7", "K19 X7", "bees"]


def open_hybrid(server: Any, *, ledger: Path | None = None, **fields: Any) -> Retriever:
    http = {"base_url": server.url, "model": "words", "max_retries": 0}
    return open_retriever(RetrieverConfig(**{"kind": "hybrid", "embeddings": "http"} | http | fields), ledger=ledger)


async def test_chunks_are_ranked_by_sum_of_reciprocal_ranks(embedding_server: Any) -> None:
    # The server counts the words of its list, which has "bees" and "mill": with the prefix, the similarities are
    # 1/√2, 0, 0 and 1, so that the embeddings rank 3, 0, 1, 2. BM25 sees no prefix: two terms, one, and none: 2, 1.
    # 2: 1/64 + 1/61 = 0.03202, 1: 1/63 + 1/62 = 0.03200, 3: 1/61 = 0.0164, 0: 1/62 = 0.0161
    retriever = open_hybrid(embedding_server, query_prefix="bees ", rrf_constant=60)
    index = retriever.index(CHUNKS)
    assert [await index.search(["K19 X7"], k) for k in (1, 2, 3, 4)] == [[[2]], [[1, 2]], [[1, 2, 3]], [[0, 1, 2, 3]]]
    await retriever.close()


async def test_statement_without_common_term_is_ranked_by_embeddings(embedding_server: Any) -> None:
    retriever = open_hybrid(embedding_server, query_prefix="bees ")
    assert await retriever.index(CHUNKS).search(["Nothing else"], 2) == [[0, 3]]
    await retriever.close()


async def test_blank_statement_gets_first_chunks(embedding_server: Any) -> None:
    retriever = open_hybrid(embedding_server)
    assert await retriever.index(CHUNKS).search([" "], 2) == [[0, 1]]
    await retriever.close()


async def test_embeddings_are_shared_with_embedding_retriever(embedding_server: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    for kind in ("http", "hybrid", "http"):
        retriever = open_hybrid(embedding_server, ledger=ledger, kind=kind)
        await retriever.index(CHUNKS).search(["K19 bees"], 1)
        await retriever.close()
    assert sorted(embedding_server.texts) == sorted([*CHUNKS, "K19 bees"])


async def test_settings_and_metrics_name_both_rankings(embedding_server: Any) -> None:
    retriever = open_hybrid(embedding_server, revision="2")
    await retriever.index(CHUNKS).search(["bees"], 1)
    assert retriever.settings() == {
        "retriever": "hybrid",
        "retriever_embeddings": "http",
        "retriever_rrf_constant": 10,
        "retriever_terms": "ngrams",
        "retriever_model": "words",
        "retriever_revision": "2",
    }
    assert retriever.metrics()["embeddings/texts"] == 4  # the statement is one of the chunks
    await retriever.close()


async def test_text_that_model_refuses_is_reported(embedding_server: Any) -> None:
    def refuse(request: dict[str, Any]) -> tuple[int, Any] | None:
        return (400, {"error": {"code": "content_filter"}}) if "K19 X7" in request["input"] else None

    embedding_server.respond = refuse
    retriever = open_hybrid(embedding_server)
    with pytest.raises(RequestRefused, match="K19 X7"):
        await retriever.index(CHUNKS).search(["bees"], 1)
    await retriever.close()


def test_invalid_combinations_are_rejected() -> None:
    retriever = {"kind": "hybrid", "model": "e", "base_url": "http://localhost:1/v1"}
    with pytest.raises(ConfigError, match="set embeddings to http, or remove base_url"):
        ScoreConfig.parse({"retriever": retriever}, source="params.yaml")
    with pytest.raises(ConfigError, match=r"must name the embedding model where score\.retriever\.kind is hybrid"):
        ScoreConfig.parse({"retriever": {"kind": "hybrid"}}, source="params.yaml")
