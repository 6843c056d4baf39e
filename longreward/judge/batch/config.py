"""Settings of batch mode: `judge.batch` in `params.yaml`."""

from pydantic import Field

from longreward.config import Config


class BatchConfig(Config):
    """How requests are collected and sent if `judge.mode` is not `live`."""

    prompts: int = Field(default=200, ge=1)
    """Prompts per shard, all processed at once; replaces `score.prompts_in_flight` and `score.shard_size`. The pipeline
    processes two shards at a time and sends their requests together. Their documents and open requests are held in
    memory: about 4 MB per prompt with ten responses."""

    requests_per_file: int = Field(default=50_000, ge=1)
    """Largest number of requests per file, and so per batch (OpenAI and Zhipu accept 50,000)."""

    megabytes_per_file: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest size of a file, in 1,000,000 bytes; None: the limit of `judge.kind` (`zhipu`: 100, the others: 200)."""

    settle_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """A batch is sent when no new request has arrived for this many seconds. Must be longer than an embedding model
    takes for one document, if one is used: later requests wait for the next batch."""

    poll_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds between two status requests for a batch."""

    endpoint: str | None = Field(default=None, pattern="^/")
    """The URL path that files and batches name for each request; None: the path of `judge.kind`
    (`/v4/chat/completions` for `zhipu`, `/v1/chat/completions` for the others)."""
