"""Embeddings in this process, by a real model of some thousand random weights."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import ConfigError, JudgeRefused, RequestRefused
from longreward.retrieval import Retriever, RetrieverConfig, check_key, open_retriever, probe

CHUNKS = ["the lamp was lit", "a keeper kept bees", "the harbour froze in winter", "a mill and a lamp"]
WORDS = sorted({word for chunk in CHUNKS for word in chunk.split()})


def test_missing_package_reported_with_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'longreward\[embeddings\]'"):
        check_key(RetrieverConfig(kind="local", model="some/model"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that reads 8 tokens, [CLS] and [SEP] among them, with the mean of their states as its vector."""
    pytest.importorskip("sentence_transformers", reason="pip install 'longreward[embeddings]'")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    bert, whole = folder / "bert", folder / "whole"
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    BertModel(settings).save_pretrained(bert)
    BertTokenizerFast(vocab=vocabulary, model_max_length=8).save_pretrained(bert)
    part = Transformer(str(bert), max_seq_length=8)
    SentenceTransformer(modules=[part, Pooling(16)], device="cpu").save(str(whole))
    return whole


def open_local(model: object, **fields: Any) -> Retriever:
    fields = {"kind": "local", "model": str(model), "device": "cpu"} | fields
    return open_retriever(RetrieverConfig(**fields), ledger=None)


async def test_statement_with_words_of_chunk_retrieves_chunk(model: Path) -> None:
    retriever = open_local(model, batch_size=2, revision="of mine")
    assert await retriever.index(CHUNKS).search(CHUNKS, 1) == [[0], [1], [2], [3]]
    assert retriever.metrics()["embeddings/texts"] == 4
    await retriever.close()


async def test_hybrid_ranks_by_words_and_local_embeddings(model: Path) -> None:
    retriever = open_local(model, kind="hybrid", embeddings="local")
    assert await retriever.index(CHUNKS).search(CHUNKS, 1) == [[0], [1], [2], [3]]
    assert retriever.metrics()["embeddings/texts"] == 4
    await retriever.close()


async def test_vectors_equal_sentence_transformers(model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from longreward.retrieval.embedders import LocalEmbedder

    embedder = LocalEmbedder(RetrieverConfig(kind="local", model=str(model), device="cpu", dimensions=8))
    vectors = await embedder.embed(CHUNKS)
    expected = SentenceTransformer(str(model), device="cpu").encode(CHUNKS)
    assert vectors.shape == (4, 8)
    assert vectors == pytest.approx(expected[:, :8], abs=1e-5)
    await embedder.close()


async def test_event_loop_not_blocked(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longreward.retrieval import embedders

    loop, entered, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    load = embedders._load_model

    def slow_load(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(20), "the event loop stood still"
        return load(*arguments)

    monkeypatch.setattr(embedders, "_load_model", slow_load)
    retriever = open_local(model)
    search = asyncio.create_task(retriever.index(CHUNKS).search(["a lamp"], 1))
    await entered.wait()
    go_on.set()
    assert len((await search)[0]) == 1
    await retriever.close()


async def test_too_long_text_refused_or_truncated(model: Path) -> None:
    long = "a mill and a lamp and a mill"  # eight words and two marks around them
    with pytest.raises(RequestRefused, match="10 tokens, limit 8"):
        await open_local(model).index([*CHUNKS, long]).search(["a lamp"], 1)
    assert await open_local(model, max_characters=17).index([*CHUNKS[:3], long]).search(["a mill and a lamp"], 1) == [
        [3]
    ]


async def test_out_of_memory_reported_with_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install 'longreward[embeddings]'")

    class Full:
        max_seq_length = None

        def encode(self, texts: list[str], **_: Any) -> None:
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr("longreward.retrieval.embedders._load_model", lambda *_: Full())
    with pytest.raises(JudgeRefused, match=r"5 texts: CUDA out of memory. Tried .* score\.retriever\.batch_size"):
        await open_local("some/model").index(CHUNKS).search(["a lamp"], 1)


async def test_model_that_cannot_be_loaded_is_reported(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"score\.retriever\.model: .*absent is neither a folder"):
        open_local(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"score\.retriever\.model: .*empty cannot be loaded"):
        await open_local(tmp_path / "empty").index(CHUNKS).search(["a lamp"], 1)
    result = await probe(RetrieverConfig(kind="local", model=str(tmp_path / "empty")))
    assert not result.ok
    assert "cannot be loaded" in result.message
    assert (await probe(RetrieverConfig(kind="local", model=str(model), device="cpu"))).ok
