"""How the chunks that a statement is held against are found: `score.retriever` in `params.yaml`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.utils.endpoints import read_key, validate_url, validate_variable_name


class RetrieverConfig(Config):
    """What ranks a document's chunks; all but `kind` is about embeddings."""

    kind: Literal["bm25", "http", "local"] = "bm25"
    """`bm25`: words in common; `http`: embeddings from any server with the OpenAI protocol's `/v1/embeddings`; `local`:
    embeddings by `sentence-transformers` in this process (`pip install 'longreward[embeddings]'`)."""

    model: str | None = Field(default=None, validate_default=True)
    """`http`: the model's name as its server knows it; `local`: a folder or a hub id. Needed by both."""

    revision: str = ""
    """`local`: the hub's commit, tag or branch. `http`: raise it when the model behind the name has changed. Vectors of
    different revisions are never mixed."""

    base_url: str | None = None
    """`http`: where the server's protocol begins, as `http://localhost:8000/v1`; None: api.openai.com."""

    api_key_env: str = "OPENAI_API_KEY"
    """`http`: the environment variable that holds the key. Where the default one is not set, no key is sent."""

    dimensions: int | None = Field(default=None, ge=1)
    """Length of the vectors, for models that can shorten theirs (text-embedding-3, Qwen3-Embedding, embedding-3); None:
    the model's own. A server that answers with another length is an error."""

    query_prefix: str = ""
    """Put before every statement, as the model was trained: `"query: "` (e5), `"Instruct: …\\nQuery:"` (Qwen3)."""

    passage_prefix: str = ""
    """Put before every chunk: `"passage: "` (e5); most models take none."""

    max_characters: int | None = Field(default=None, ge=1)
    """Longer texts are cut to this many characters, prefix not counted; None: never. A text that is too long for the
    model then leaves the faithfulness of its response unscored, with that reason."""

    batch_size: int = Field(default=32, ge=1, le=2048)
    """Most texts in one call of the model; servers have limits (OpenAI 2,048, TEI 32, DashScope 10)."""

    batch_characters: int = Field(default=100_000, ge=1)
    """Most characters in one call of the model, unless a single text has more; OpenAI takes 300,000 tokens a call."""

    max_concurrency: int = Field(default=8, ge=1, le=1000)
    """`http`: calls in flight at once."""

    timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """`http`: seconds without a byte from the server after which a call has failed."""

    max_retries: int = Field(default=5, ge=0, le=100)
    """`http`: retries of a failed call (no connection, a timeout, 408, 409, 429, 5xx), with backoff or as Retry-After
    says."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """`http`: fields added to every request, as `{"truncate_prompt_tokens": 512}` for vLLM; one of ours is replaced,
    and left out where the value is null, as `{"encoding_format": null}`."""

    device: str | None = None
    """`local`: torch's name of the device, as `cpu` or `cuda:1`; None: the first GPU where there is one."""

    trust_remote_code: bool = False
    """`local`: whether code that comes with the model may run."""

    @field_validator("model")
    @classmethod
    def _is_named_for_embeddings(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind")
        if kind in ("http", "local") and not value:
            raise ValueError(f"must name the embedding model where score.retriever.kind is {kind}")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_plain_url(cls, value: str | None) -> str | None:
        return validate_url(value, section="score.retriever")

    @field_validator("api_key_env")
    @classmethod
    def _is_variable_name(cls, value: str) -> str:
        return validate_variable_name(value, section="score.retriever")


def check_key(config: RetrieverConfig) -> str | None:
    """Return the API key that the retriever sends, or None; makes no call and loads no model.

    Raises:
        ConfigError: the environment variable of a required key is not set; for `kind: local`, the package
            sentence-transformers or the model's folder is missing.
    """
    if config.kind == "local":
        _check_local_model(config.model or "")
    if config.kind != "http":
        return None
    return read_key(
        config.api_key_env,
        base_url=config.base_url,
        owner=f"embeddings of {config.model!r}",
        section="score.retriever",
    )


def _check_local_model(model: str) -> None:
    if find_spec("sentence_transformers") is None:
        raise ConfigError(
            "score.retriever.kind is local, which needs the package sentence-transformers: "
            "pip install 'longreward[embeddings]'"
        )
    path = Path(model)
    # A hub id has at most one slash; everything else that looks like a path must be an existing folder.
    if not path.is_dir() and (path.is_absolute() or path.is_file() or model.count("/") > 1):
        raise ConfigError(f"score.retriever.model: {model} is neither a folder with a model nor a hub id")
