"""Errors of an embedding server, its probe, and the secrecy of the API key."""

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import ConfigError, JudgeError, JudgeRefused, JudgeUnavailable, RequestRefused
from longreward.retrieval import RetrieverConfig, check_key, open_retriever, probe

KEY = "sk-test-9876543210-very-secret"


def config(url: str | None, **fields: Any) -> RetrieverConfig:
    return RetrieverConfig(**{"kind": "http", "base_url": url, "model": "words", "max_retries": 0} | fields)


async def search_error(settings: RetrieverConfig, kind: type[JudgeError], ledger: Path | None = None) -> JudgeError:
    retriever = open_retriever(settings, ledger=ledger)
    try:
        with pytest.raises(kind) as caught:
            await retriever.index(["one", "two"]).search(["three"], 1)
        assert type(caught.value) is kind
        return caught.value
    finally:
        await retriever.close()


async def test_absent_or_overloaded_server_is_unavailable(
    embedding_server: Any,
) -> None:
    absent = await search_error(config("http://127.0.0.1:9/v1"), JudgeUnavailable)
    assert "embeddings of 'words' at http://127.0.0.1:9/v1/" in str(absent)
    assert "is the server running?" in str(absent)
    embedding_server.respond = lambda request: (503, {"error": {"message": "loading"}})
    assert "503 to every retry: loading" in str(await search_error(config(embedding_server.url), JudgeUnavailable))


async def test_failed_call_retried(embedding_server: Any) -> None:
    embedding_server.respond = lambda request: (500, "") if len(embedding_server.requests) == 1 else None
    retriever = open_retriever(config(embedding_server.url, max_retries=1), ledger=None)
    assert await retriever.index(["bees", "lamp"]).search(["lamp"], 1) == [[1]]
    assert len(embedding_server.requests) == 2
    await retriever.close()


async def test_texts_of_failed_call_embedded_by_next_search(embedding_server: Any) -> None:
    embedding_server.respond = lambda request: (500, "") if len(embedding_server.requests) == 1 else None
    retriever = open_retriever(config(embedding_server.url), ledger=None)
    index = retriever.index(["bees", "lamp"])
    with pytest.raises(JudgeUnavailable):
        await index.search(["lamp"], 1)
    assert await index.search(["lamp"], 1) == [[1]]
    await retriever.close()


async def test_timeout_reported_with_settings(embedding_server: Any) -> None:
    embedding_server.latency_s = 1
    slow = await search_error(config(embedding_server.url, timeout_s=0.2), JudgeUnavailable)
    assert "score.retriever.timeout_s and score.retriever.max_concurrency" in str(slow)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"error": {"message": "bad key"}}, "check the key in OPENAI_API_KEY (it is not set)"),
        (404, {"error": {"message": "no model"}}, "check score.retriever.model, and whether score.retriever.base_url"),
        (400, {"error": {"message": "batch size is invalid"}}, "batch size is invalid"),
        (400, {"error": {"message": "batch of 32 is too much"}}, "or lower score.retriever.batch_size (is 32)"),
    ],
)
async def test_refusal_reported_with_advice(embedding_server: Any, status: int, body: Any, expected: str) -> None:
    embedding_server.respond = lambda request: (status, body)
    assert expected in str(await search_error(config(embedding_server.url), JudgeRefused))


async def test_key_sent_but_not_logged(
    embedding_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VECTORS_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    settings = config(embedding_server.url, api_key_env="VECTORS_KEY")
    outputs = [repr(open_retriever(settings, ledger=None)), str((await probe(settings)).message)]
    for status, kind in ((401, JudgeRefused), (413, RequestRefused), (500, JudgeUnavailable)):
        embedding_server.respond = lambda request, status=status: (status, {"error": {"message": f"Bearer {KEY}"}})
        error = await search_error(settings, kind, ledger=tmp_path / "ledger.sqlite")
        outputs += [*traceback.format_exception(error), repr(error), repr(error.__context__)]
        outputs.append((await probe(settings)).message)
    assert set(embedding_server.keys) == {f"Bearer {KEY}"}
    assert sum("Bearer ***" in text for text in outputs) >= 6
    assert KEY not in "".join(outputs)
    assert KEY not in caplog.text
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_missing_key_is_error_without_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    check_key(RetrieverConfig())
    check_key(config("http://127.0.0.1:9/v1"))  # a local server may need none
    for missing in (config(None), config("http://127.0.0.1:9/v1", api_key_env="VECTORS_KEY")):
        with pytest.raises(ConfigError, match=f"{missing.api_key_env} holds no key for embeddings of 'words'"):
            check_key(missing)
        with pytest.raises(ConfigError, match=r"score\.retriever\.base_url"):
            open_retriever(missing, ledger=None)
    monkeypatch.setenv("VECTORS_KEY", "two words")
    with pytest.raises(ConfigError, match="characters that no key has") as caught:
        check_key(config(None, api_key_env="VECTORS_KEY"))
    assert "two words" not in str(caught.value)


async def test_probe_reports_dimensions_or_error(embedding_server: Any) -> None:
    result = await probe(config(embedding_server.url, query_prefix="query: "))
    assert result.ok
    assert f"embeddings of 'words' at {embedding_server.url}/: 9 dimensions in " in result.message
    assert embedding_server.texts[0].startswith("query: ")
    absent = await probe(config("http://127.0.0.1:9/v1"))
    assert not absent.ok
    assert "is the server running?" in absent.message
    embedding_server.respond = lambda request: (200, {"data": [{"embedding": [None]}]})
    assert "NaN, null or infinite" in (await probe(config(embedding_server.url))).message
    assert "VECTORS_KEY" in (await probe(config(None, api_key_env="VECTORS_KEY"))).message
    assert (await probe(RetrieverConfig())).ok


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kind": "http"}, "must name the embedding model where score.retriever.kind is http"),
        ({"kind": "local", "model": ""}, "must name the embedding model where score.retriever.kind is local"),
        ({"kind": "embeddings"}, "'bm25', 'hybrid', 'http' or 'local'"),
        ({"base_url": "localhost:8000"}, "must be a URL like"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url: must hold no user"),
        ({"api_key_env": "sk-secret"}, "api_key_env: must be the name"),
        ({"query_prefx": "query: "}, "did you mean query_prefix?"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_invalid_settings_reported_without_secrets(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RetrieverConfig.parse(values, source="params.yaml: score.retriever")
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)
