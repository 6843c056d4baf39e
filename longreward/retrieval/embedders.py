"""What an embedding model is: something that turns texts into vectors, on a server or in this process."""

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

Vectors = NDArray[np.float32]  # a row a text


class Embedder(Protocol):
    """A model that is asked in batches; its callers keep to the batch sizes of the settings."""

    @property
    def where(self) -> str:
        """What and where it is, for messages; holds no key."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """A row of numbers for each text, in their order.

        Raises AnswerRefused where it declines one of the texts (too long, a content filter), JudgeUnavailable where
        asking later may help, else JudgeRefused or JudgeProtocolError.
        """

    async def close(self) -> None:
        """Lets go of connections and threads."""


def open_embedder(config: RetrieverConfig) -> Embedder:
    """The model that `config` describes; raises ConfigError where its key, package or folder is missing."""
    if config.kind == "http":
        return HttpEmbedder(config)

    return LocalEmbedder(config)


# Embeddings from any server that speaks the OpenAI protocol's `/v1/embeddings`, asked through the `openai` library.
#
#     POST {"model": "bge-m3", "input": ["passage: Keld was …", …], "encoding_format": "float"}
#     -> {"data": [{"index": 0, "embedding": [0.013, …]}, …]}
#
# The library retries what may pass; what stays is told apart in `longreward.utils.http_errors`.


class HttpEmbedder:
    """An Embedder over HTTP. The key comes from the environment and appears in no error, answer or repr."""

    def __init__(self, config: RetrieverConfig) -> None:
        from openai import AsyncOpenAI, Timeout

        assert config.model is not None, "RetrieverConfig holds kind http to a model"
        key = check_key(config)
        connect_s = min(config.timeout_s, CONNECT_TIMEOUT_S)
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
        self._errors = ErrorMapper(
            server=f"embeddings of {config.model!r} at {self._client.base_url}",
            section="score.retriever",
            key=key,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            connect_s=connect_s,
            protocol="embeddings",
            request_kind="text",
        )

    @property
    def where(self) -> str:
        return self._errors.server

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
            fault = self._errors.from_exception(error)
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
            raise self._errors.protocol_error(body) from None
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
            raise self._errors.protocol_error(body)
        return vectors


# Embeddings by `sentence-transformers` in this process: in a thread of their own, so that the event loop goes on.


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
