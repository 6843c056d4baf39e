"""Count what judge calls use, compute what it costs, and store the sum over all runs of one scoring."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import Field

from longreward.config import Config
from longreward.errors import StateError
from longreward.judge.config import JudgeConfig

TOKENS_PER_PRICE = 1_000_000
FILE_SIZE = 512  # bytes; a write of this size at one position is atomic in practice


class Price(Config):
    """What a million tokens of one model cost."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    """For a million prompt tokens."""

    cached_prompt: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """For a million prompt tokens that the provider took from its cache; None: the price of any other."""

    cache_write: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """For a million prompt tokens that the provider wrote to its cache (Anthropic: 1.25 times `prompt`); None: the
    price of any other."""

    completion: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """For a million tokens of replies, reasoning included."""

    batch_share: float = Field(default=0.5, ge=0, le=1)
    """What a call in the provider's batch interface costs, as a share of the price of a live one."""

    def cost(
        self, prompt: float, completion: float, *, cached: float = 0, written: float = 0, batch: bool = False
    ) -> float:
        """Return the cost of these tokens.

        `cached` is the part of `prompt` that came from the provider's cache, `written` the part that was added to it.
        """
        cached_price = self.prompt if self.cached_prompt is None else self.cached_prompt
        write_price = self.prompt if self.cache_write is None else self.cache_write
        full = (prompt - cached - written) * self.prompt + cached * cached_price + written * write_price
        full += completion * self.completion
        return full / TOKENS_PER_PRICE * (self.batch_share if batch else 1)


# No stage depends on this section, so that a price can be corrected without running any stage again.
class PricesConfig(Config):
    """What judges cost, for `longreward plan` and for budgets in money."""

    currency: str = "USD"
    """Currency of the prices; a label."""

    models: dict[str, Price] = Field(default_factory=dict)
    """For each `judge.model` what a million tokens cost, as `{"gpt-4o-2024-05-13": {"prompt": 5.0, "cached_prompt":
    2.5, "completion": 15.0}}` (`batch_share`, 0.5, is what a call in batch mode costs of that). A model without a price
    costs an unknown amount; the offline judge costs nothing."""

    def price_for(self, judge: JudgeConfig) -> Price | None:
        """Return the price of a judge; None where it is unknown."""
        return Price(prompt=0.0) if judge.kind == "offline" else self.models.get(judge.model or "")


@dataclass(frozen=True)
class Usage:
    """Calls with their tokens, and their cost where the price is known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


class UsageStore:
    """A small file with the usage over all runs of one scoring, locked by this process; None: keep nothing.

    The file is written before and after each call, in one write. If the process is killed, it contains what was spent
    and the maximum that the calls in flight can cost, which the next run counts as spent.

    Raises StateError where another process holds the lock, or the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.previous = Usage()
        """What earlier runs spent."""
        self._file: int | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            # The kernel releases the lock when the process ends, however it ends.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if content := os.pread(self._file, FILE_SIZE, 0).strip():
                row = json.loads(content)
                self.previous = Usage(**row["spent"]) + Usage(**row["reserved"])
        except BlockingIOError:
            self.close()
            raise StateError(
                f"{path}: another process is spending this budget now; let it end first, or give this scoring other "
                "files or another state folder (LONGREWARD_STATE)"
            ) from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.close()
            raise StateError(
                f"{path}: the spent amounts cannot be read: {error}. If the file is damaged, move it aside: the "
                "amounts start again at zero, and no reply is lost"
            ) from error

    def write(self, spent: Usage, reserved: Usage) -> None:
        """Store both amounts before returning."""
        if self._file is None:
            return
        line = json.dumps({"spent": asdict(spent), "reserved": asdict(reserved)})
        try:
            os.pwrite(self._file, line.ljust(FILE_SIZE - 1).encode() + b"\n", 0)
        except OSError as error:
            raise StateError(f"{self.path}: the spent amounts cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Release the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
