"""Embeddings by `sentence-transformers` in this process: in a thread of their own, so that the event loop goes on."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from longreward.errors import ConfigError, JudgeRefused, RequestRefused
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedder import Vectors
from longreward.retrieval.embedder_probe import check_key


class LocalEmbedder:
    """An Embedder in this process; the model is loaded at the first text."""

    def __init__(self, config: RetrieverConfig) -> None:
        assert config.model is not None, "RetrieverConfig holds kind local to a model"
        check_key(config)
        self._config = config
        self._name = config.model
        self._commit = None if Path(config.model).is_dir() else config.revision or None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embeddings")

    @property
    def where(self) -> str:
        return f"embeddings of {self._config.model!r} in this process"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts))

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Vectors:
        config = self._config
        model = _load(self._name, self._commit, config.device, config.dimensions, config.trust_remote_code)
        self._refuse_too_long(model, texts)
        try:
            vectors = model.encode(texts, batch_size=len(texts), prompt="", show_progress_bar=False)
        except RuntimeError as error:  # torch's, as when memory is out
            said = " ".join(str(error).split())[:300]
            raise JudgeRefused(
                f"the {self.where} failed on {len(texts)} texts: {said}; "
                "score.retriever.batch_size and score.retriever.device can be changed"
            ) from error
        return np.asarray(vectors, dtype=np.float32)

    def _refuse_too_long(self, model: Any, texts: list[str]) -> None:
        """The library cuts them without a word."""
        limit, tokenizer = model.max_seq_length, getattr(model, "tokenizer", None)
        if limit is None or not callable(tokenizer):
            return
        longest = max(len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"])
        if longest > limit:
            raise RequestRefused(f"the text is too long for the {self.where}: {longest} tokens, it reads {limit}")


@lru_cache(maxsize=1)  # from one opening of a retriever to the next
def _load(name: str, revision: str | None, device: str | None, dimensions: int | None, trust_remote_code: bool) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            name,
            revision=revision,
            device=device,
            truncate_dim=dimensions,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # of many libraries; whatever it is, the settings name what cannot be loaded
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"score.retriever.model: {name} cannot be loaded: {said}") from error
