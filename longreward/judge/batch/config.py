"""What can be set about batches."""

from pydantic import Field

from longreward.config import Config


class BatchConfig(Config):
    """How questions are collected and sent where `judge.mode` is not `live`."""

    prompts: int = Field(default=200, ge=1)
    """Prompts a shard, all of them under way at once, in place of `score.prompts_in_flight` and `score.shard_size`.
    The pipeline has two shards under way, whose questions go out together. Their documents and open questions are
    held in memory: about 4 MB a prompt with ten responses."""

    requests_per_file: int = Field(default=50_000, ge=1)
    """Questions a file, and so a batch, at most (OpenAI and Zhipu take 50,000)."""

    megabytes_per_file: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Size of a file at most, in 1,000,000 bytes; None: what `judge.kind` takes (`zhipu`: 100, the others: 200)."""

    settle_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """A round goes out when no question has come for so many seconds. Longer than an embedding model takes for one
    document, where one is used: questions that come later wait for the next round."""

    poll_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds between two looks at a batch."""

    endpoint: str | None = Field(default=None, pattern="^/")
    """What the files and batches name as the address of a question; None: what `judge.kind` calls it
    (`/v4/chat/completions` for `zhipu`, `/v1/chat/completions` for the others)."""
