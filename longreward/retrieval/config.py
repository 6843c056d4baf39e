"""Settings of the retriever: `score.retriever` in `params.yaml`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.utils.endpoints import BaseUrl, KeyVariable, read_key

EmbeddingKind = Literal["http", "local"]
TermKind = Literal["words", "ngrams"]


class RetrieverConfig(Config):
    """How a document's chunks are ranked. `terms` and `user_query_weight` configure BM25, the fields from `embeddings`
    on embeddings."""

    kind: Literal["bm25", "hybrid", "http", "local"] = "bm25"
    """`bm25`: shared terms; `http`: embeddings from a server with the OpenAI endpoint `/v1/embeddings`; `local`:
    embeddings by `sentence-transformers` in this process (`pip install 'longreward[embeddings]'`); `hybrid`: reciprocal
    rank fusion of `bm25` and embeddings."""

    terms: TermKind | None = None
    """`bm25`, `hybrid`: compare whole `words`, or `ngrams` of 5 characters, which inflected forms of a word share;
    None: words for `bm25`, n-grams for `hybrid`."""

    user_query_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """`bm25`, `hybrid`: weight of the user's query, which is searched together with each statement, relative to the
    statement (1: equal); 0: the statement alone."""

    embeddings: EmbeddingKind = "local"
    """`hybrid`: the kind of the embeddings."""

    rrf_constant: int = Field(default=10, ge=0)
    """`hybrid`: a chunk at rank r adds 1 / (rrf_constant + r) to its score. Cormack et al. (2009) chose 60 for rankings
    of 1,000 documents; for 100 chunks of which five count, 10 was better."""

    model: str | None = Field(default=None, validate_default=True)
    """`http`: the model's name on the server; `local`: a folder or a hub id. Required for embeddings."""

    revision: str = ""
    """`local`: the hub's commit, tag or branch. `http`: any text; change it when the model behind the name changes.
    Vectors of different revisions are never mixed."""

    base_url: BaseUrl | None = None
    """`http`: base URL of the server, such as `http://localhost:8000/v1`; None: api.openai.com."""

    api_key_env: KeyVariable = "OPENAI_API_KEY"
    """`http`: the environment variable with the API key. If the default variable is not set, no key is sent."""

    dimensions: int | None = Field(default=None, ge=1)
    """Length of the vectors, for models that can shorten them (text-embedding-3, Qwen3-Embedding, embedding-3); None:
    the model's default. A server that returns another length is an error."""

    query_prefix: str = ""
    """Prepended to every statement, as the model was trained: `"query: "` (e5), `"Instruct: …\\nQuery:"` (Qwen3)."""

    passage_prefix: str = ""
    """Prepended to every chunk: `"passage: "` (e5); most models need none."""

    max_characters: int | None = Field(default=None, ge=1)
    """Truncate longer texts to this many characters, without the prefix; None: never. A text that exceeds the model's
    limit leaves the faithfulness of its response unscored, with the reason."""

    batch_size: int = Field(default=32, ge=1, le=2048)
    """Maximum texts per call of the model; servers have limits (OpenAI 2,048, TEI 32, DashScope 10)."""

    batch_characters: int = Field(default=100_000, ge=1)
    """Maximum characters per call, unless a single text is longer; OpenAI accepts 300,000 tokens per call."""

    max_concurrency: int = Field(default=8, ge=1, le=1000)
    """`http`: concurrent calls."""

    timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """`http`: seconds without a byte from the server after which a call fails."""

    max_retries: int = Field(default=5, ge=0, le=100)
    """`http`: retries of a failed call (no connection, timeout, 408, 409, 429, 5xx), with backoff or Retry-After."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """`http`: fields added to every request, such as `{"truncate_prompt_tokens": 512}` for vLLM; they replace existing
    fields, and null removes one, as in `{"encoding_format": null}`."""

    device: str | None = None
    """`local`: a torch device, such as `cpu` or `cuda:1`; None: the first GPU, if there is one."""

    trust_remote_code: bool = False
    """`local`: allow code from the model repository to run."""

    @property
    def embedding_kind(self) -> EmbeddingKind | None:
        """The kind of the embeddings; None: no embeddings."""
        if self.kind == "bm25":
            return None
        return self.embeddings if self.kind == "hybrid" else self.kind

    @property
    def term_kind(self) -> TermKind:
        """The terms that BM25 compares."""
        return self.terms or ("ngrams" if self.kind == "hybrid" else "words")

    @field_validator("model")
    @classmethod
    def _validate_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind")
        if kind in ("hybrid", "http", "local") and not value:
            raise ValueError(f"must name the embedding model where score.retriever.kind is {kind}")
        return value

    @model_validator(mode="after")
    def _validate_hybrid(self) -> Self:
        if self.kind == "hybrid" and self.embeddings == "local" and self.base_url is not None:
            raise ValueError(
                f"base_url is {self.base_url}, but embeddings is local: set embeddings to http, or remove base_url"
            )
        return self


def check_key(config: RetrieverConfig) -> str | None:
    """Return the API key that the retriever sends, or None; makes no call and loads no model.

    Raises:
        ConfigError: the environment variable of a required key is not set; for local embeddings, the package
            sentence-transformers or the model's folder is missing.
    """
    if config.embedding_kind == "local":
        if find_spec("sentence_transformers") is None:
            raise ConfigError(
                "score.retriever has local embeddings, which need the package sentence-transformers: "
                "pip install 'longreward[embeddings]'"
            )
        model = config.model or ""
        path = Path(model)
        # A hub id has at most one slash; everything else that looks like a path must be an existing folder.
        if not path.is_dir() and (path.is_absolute() or path.is_file() or model.count("/") > 1):
            raise ConfigError(f"score.retriever.model: {model} is neither a folder with a model nor a hub id")
    if config.embedding_kind != "http":
        return None
    return read_key(
        config.api_key_env,
        base_url=config.base_url,
        owner=f"embeddings of {config.model!r}",
        section="score.retriever",
    )
