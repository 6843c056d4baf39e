"""Is the embedding model there? Looked at before hours are spent: the key without any call, the model with one text.

check_key(config)                   # raises ConfigError that names the variable to set, or the package to install
found = await probe(config)
print(found.ok, found.told)         # True  embeddings 'bge-m3' at http://localhost:8080/v1: 1024 dimensions in 0.1 s
"""

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from longreward.errors import ConfigError, JudgeError
from longreward.retrieval.config import RetrieverConfig
from longreward.utils.endpoints import key_from_environment


def check_key(config: RetrieverConfig) -> str | None:
    """The key that the retriever will send, None for none. Calls nobody and loads nothing.

    Raises ConfigError where a key is needed and not in the environment; for a local model, where its package or folder
    is missing.
    """
    if config.kind == "local":
        _check_local(config.model or "")
    if config.kind != "http":
        return None
    return key_from_environment(
        config.api_key_env,
        base_url=config.base_url,
        whose=f"embeddings of {config.model!r}",
        section="score.retriever",
    )


def _check_local(model: str) -> None:
    if find_spec("sentence_transformers") is None:
        raise ConfigError(
            "score.retriever.kind is local, which needs the package sentence-transformers: "
            "pip install 'longreward[embeddings]'"
        )
    path = Path(model)
    if not path.is_dir() and (path.is_absolute() or path.is_file() or model.count("/") > 1):
        raise ConfigError(f"score.retriever.model: {model} is no folder of a model, and no hub id either")


@dataclass(frozen=True)
class Probe:
    """What an embedding model did with one short text."""

    ok: bool
    """Whether it can be worked with; where not, `told` says why and what to do."""
    told: str
    """One line for people: what, where, and how it went. Holds no key."""
    dimensions: int | None = None
    """Length of the vector; None where there is none."""
    seconds: float = 0.0
    """From the start to the vector; for a local model that includes loading it."""


async def probe(config: RetrieverConfig, *, timeout_s: float = 60.0) -> Probe:
    """Has one text embedded, past the ledger; never raises for what the model or its server does.

    A call gets at most `timeout_s` (or the retriever's own limit where that is shorter) and one retry.
    """
    if config.kind == "bm25":
        return Probe(True, "bm25: needs no server and no model")
    from longreward.retrieval.embedder import open_embedder
    from longreward.retrieval.embedding_cache import EmbeddedTexts
    from longreward.retrieval.vector_ledger import VectorLedger

    hasty = config.model_copy(
        update={"timeout_s": min(config.timeout_s, timeout_s), "max_retries": min(config.max_retries, 1)}
    )
    started = time.monotonic()
    try:
        embedder = open_embedder(hasty)
        texts = EmbeddedTexts(embedder, hasty, VectorLedger(None))
        try:
            (vector,) = await texts.of([f"{config.query_prefix}Which river flows through Keld?"])
        finally:
            await texts.close()
    except (ConfigError, JudgeError) as error:
        return Probe(False, str(error), seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    dimensions = 0 if vector is None else len(vector)
    return Probe(True, f"{embedder.where}: {dimensions} dimensions in {seconds:.1f} s", dimensions, seconds)
