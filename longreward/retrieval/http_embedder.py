"""Embeddings from any server that speaks the OpenAI protocol's `/v1/embeddings`, asked through the `openai` library.

    POST {"model": "bge-m3", "input": ["passage: Keld was …", …], "encoding_format": "float"}
    -> {"data": [{"index": 0, "embedding": [0.013, …]}, …]}

The library retries what may pass; what stays is told apart in `longreward.utils.http_errors`.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from longreward.errors import JudgeError, JudgeProtocolError, JudgeRefused
from longreward.judge.http_client import CONNECT_S
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedder import Vectors
from longreward.retrieval.embedder_probe import check_key
from longreward.utils.http_errors import ErrorMapper


class HttpEmbedder:
    """An Embedder over HTTP. The key comes from the environment and appears in no error, answer or repr."""

    def __init__(self, config: RetrieverConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None, "RetrieverConfig holds kind http to a model"
        key = check_key(config)
        connect_s = min(config.timeout_s, CONNECT_S)
        self._client = AsyncOpenAI(
            base_url=config.base_url,
            api_key=key or "none",  # the library insists on one; servers without keys ignore it
            timeout=Timeout(config.timeout_s, connect=connect_s),
            max_retries=config.max_retries,
        )
        self._fields: dict[str, Any] = {"model": config.model, "encoding_format": "float"}
        if config.dimensions is not None:
            self._fields["dimensions"] = config.dimensions
        self._extra = config.extra_body
        self._batch_size = config.batch_size
        self._places = asyncio.Semaphore(config.max_concurrency)
        self._faults = ErrorMapper(
            where=f"embeddings of {config.model!r} at {self._client.base_url}",
            section="score.retriever",
            key=key,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            connect_s=connect_s,
            protocol="embeddings",
            asked="text",
        )

    @property
    def where(self) -> str:
        return self._faults.where

    async def embed(self, texts: Sequence[str]) -> Vectors:
        from openai import APIError

        sent = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # no half surrogate pairs
        fields = {name: value for name, value in (self._fields | self._extra).items() if value is not None}
        fault: JudgeError
        try:
            async with self._places:  # by path: the library's own method insists on an encoding
                reply = await self._client.post("/embeddings", body=fields | {"input": sent}, cast_to=str)
            return self._read(reply, len(texts))
        except APIError as error:
            fault = self._faults.of(error)
            if isinstance(fault, JudgeRefused) and "batch" in str(fault):
                fault = JudgeRefused(f"{fault}, or lower score.retriever.batch_size (is {self._batch_size})")
        raise fault  # outside the except: the library's error holds the request with its headers

    async def close(self) -> None:
        await self._client.close()

    def _read(self, body: str, count: int) -> Vectors:
        try:
            data = json.loads(body)["data"]
            rows = [row["embedding"] for row in sorted(data, key=lambda row: row.get("index") or 0)]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._faults.no_protocol(body) from None
        if len(rows) != count:
            raise JudgeProtocolError(f"the {self.where} answered with {len(rows)} vectors for {count} texts")
        try:
            with np.errstate(over="ignore"):
                vectors = np.array(rows, dtype=np.float32)  # null becomes NaN, what is too large infinite
        except (ValueError, TypeError):
            lengths = sorted({len(row) for row in rows if isinstance(row, list)})
            raise JudgeProtocolError(
                f"the {self.where} answered with what are not vectors of one length "
                f"(lengths: {', '.join(map(str, lengths)) or 'none'})"
            ) from None
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise self._faults.no_protocol(body)
        return vectors
