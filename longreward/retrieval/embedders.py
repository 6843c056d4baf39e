"""Embedding models: over HTTP (any server with the OpenAI endpoint `/v1/embeddings`) and in this process.

POST {"model": "bge-m3", "input": ["passage: Keld was …", …], "encoding_format": "float"}
-> {"data": [{"index": 0, "embedding": [0.013, …]}, …]}
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from longreward.errors import ConfigError, JudgeError, JudgeProtocolError, JudgeRefused, RequestRefused
from longreward.retrieval.config import RetrieverConfig, check_key
from longreward.utils.http_errors import CONNECT_TIMEOUT_S, ErrorMapper

Vectors = NDArray[np.float32]  # (texts, dimensions)


class Embedder(Protocol):
    """An embedding model; callers respect the batch sizes of the settings."""

    @property
    def description(self) -> str:
        """The model and its location, for messages; contains no key."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in the same order.

        Raises RequestRefused if the model declines one of the texts (too long, content filter), JudgeUnavailable if a
        later call may succeed, else JudgeRefused or JudgeProtocolError.
        """

    async def close(self) -> None:
        """Release connections and threads."""


def open_embedder(config: RetrieverConfig) -> Embedder:
    """Open the configured model; raise ConfigError if its key, package or folder is missing."""
    return HttpEmbedder(config) if config.embedding_kind == "http" else LocalEmbedder(config)


class HttpEmbedder:
    """An Embedder over HTTP; the `openai` library retries transient failures. The API key appears in no error."""

    def __init__(self, config: RetrieverConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None  # validated by RetrieverConfig
        key = check_key(config)
        connect_s = min(config.timeout_s, CONNECT_TIMEOUT_S)
        self._client = AsyncOpenAI(
            base_url=config.base_url,
            api_key=key or "none",  # the library requires one; servers without keys ignore it
            timeout=Timeout(config.timeout_s, connect=connect_s),
            max_retries=config.max_retries,
        )
        fields: dict[str, Any] = {"model": config.model, "encoding_format": "float"}
        if config.dimensions is not None:
            fields["dimensions"] = config.dimensions
        self._fields = {name: value for name, value in (fields | config.extra_body).items() if value is not None}
        self._batch_size = config.batch_size
        self._semaphore = asyncio.Semaphore(config.max_concurrency)
        self._errors = ErrorMapper(
            server=f"embeddings of {config.model!r} at {self._client.base_url}",
            section="score.retriever",
            key=key,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            connect_s=connect_s,
            protocol="OpenAI embeddings",
            request_kind="text",
        )

    @property
    def description(self) -> str:
        return self._errors.server

    async def embed(self, texts: Sequence[str]) -> Vectors:
        from openai import APIError

        valid_texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # no lone surrogates
        error: JudgeError
        try:
            async with self._semaphore:
                # Not `client.embeddings.create`, which always sends an encoding format (openai 3): some servers
                # reject it.
                body = await self._client.post("/embeddings", body=self._fields | {"input": valid_texts}, cast_to=str)
            return self._parse_vectors(body, len(texts))
        except APIError as api_error:
            error = self._errors.from_exception(api_error)
            if isinstance(error, JudgeRefused) and "batch" in str(error):
                error = JudgeRefused(f"{error}, or lower score.retriever.batch_size (is {self._batch_size})")
        raise error  # outside of the except block: the library's error holds the request with the API key

    async def close(self) -> None:
        await self._client.close()

    def _parse_vectors(self, body: str, count: int) -> Vectors:
        try:
            data = json.loads(body)["data"]
            rows = [row["embedding"] for row in sorted(data, key=lambda row: row.get("index") or 0)]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._errors.protocol_error(body) from None
        if len(rows) != count:
            raise JudgeProtocolError(f"the {self.description} returned {len(rows)} vectors for {count} texts")
        try:
            # null becomes NaN, and numbers that are too large become infinite: CachedEmbedder rejects both.
            with np.errstate(over="ignore"):
                vectors = np.array(rows, dtype=np.float32)
        except (ValueError, TypeError):
            lengths = sorted({len(row) for row in rows if isinstance(row, list)})
            raise JudgeProtocolError(
                f"the {self.description} returned something other than vectors of one length "
                f"(lengths: {', '.join(map(str, lengths)) or 'none'})"
            ) from None
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise self._errors.protocol_error(body)
        return vectors


class LocalEmbedder:
    """An Embedder by `sentence-transformers` in a thread of this process; loads the model for the first text."""

    def __init__(self, config: RetrieverConfig) -> None:
        assert config.model is not None  # validated by RetrieverConfig
        check_key(config)
        self._config = config
        self._model = config.model
        self._revision = None if Path(config.model).is_dir() else config.revision or None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embeddings")

    @property
    def description(self) -> str:
        return f"embeddings of {self._model!r} in this process"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._embed, list(texts))

    async def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Vectors:
        config = self._config
        model = _load_model(self._model, self._revision, config.device, config.dimensions, config.trust_remote_code)
        # The library would truncate a longer text silently.
        limit, tokenizer = model.max_seq_length, getattr(model, "tokenizer", None)
        if limit is not None and callable(tokenizer):
            longest = max(len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"])
            if longest > limit:
                raise RequestRefused(
                    f"the text is too long for the {self.description}: {longest} tokens, limit {limit}"
                )
        try:
            vectors = model.encode(texts, batch_size=len(texts), prompt="", show_progress_bar=False)
        except RuntimeError as error:  # from torch, such as out of memory
            reason = " ".join(str(error).split())[:300]
            raise JudgeRefused(
                f"the {self.description} failed on {len(texts)} texts: {reason}; "
                "change score.retriever.batch_size or score.retriever.device"
            ) from error
        return np.asarray(vectors, dtype=np.float32)


@lru_cache(maxsize=1)  # keep the model when the retriever is opened again
def _load_model(
    model: str, revision: str | None, device: str | None, dimensions: int | None, trust_remote_code: bool
) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            model,
            revision=revision,
            device=device,
            truncate_dim=dimensions,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # of several libraries: hub, safetensors, tokenizers, torch
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"score.retriever.model: {model} cannot be loaded: {reason}") from error
