"""What a judge's tokens cost: the section `prices` of params.yaml.

    prices:
      currency: USD
      models:
        gpt-4o-2024-05-13: {prompt: 5.0, cached_prompt: 2.5, completion: 15.0}

No stage depends on it, so that a price can be put right without any stage being run again.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import Field

from longreward.config import Config
from longreward.errors import StateError


class Price(Config):
    """What a million tokens of one model cost."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    """For a million prompt tokens."""

    cached_prompt: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """For a million prompt tokens that the provider took from its cache; None: as any other."""

    completion: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """For a million tokens of answers, thoughts among them."""

    batch_share: float = Field(default=0.5, ge=0, le=1)
    """What a call in the provider's batch interface costs, as a share of the price of a live one."""

    def cost(self, prompt: float, completion: float, *, cached: float = 0, batch: bool = False) -> float:
        """What so many tokens cost; `cached` are among those of the prompt."""
        of_cached = self.prompt if self.cached_prompt is None else self.cached_prompt
        full = ((prompt - cached) * self.prompt + cached * of_cached + completion * self.completion) / MILLION
        return full * (self.batch_share if batch else 1)

    def most(self, prompt: float, completion: float, *, batch: bool = False) -> float:
        """The most that so many tokens may cost, however many of them prove to be cached."""
        dearer = max(self.prompt, self.cached_prompt or 0)
        share = self.batch_share if batch else 1
        return (prompt * dearer + completion * self.completion) / MILLION * share


class PricesConfig(Config):
    """What judges cost, for `longreward plan` and for budgets in money."""

    currency: str = "USD"
    """What the prices are in; a label."""

    models: dict[str, Price] = Field(default_factory=dict)
    """For each `judge.model` what a million tokens cost, as `{"gpt-4o-2024-05-13": {"prompt": 5.0, "cached_prompt":
    2.5, "completion": 15.0}}` (`batch_share`, 0.5, is what a call in batch mode costs of that). A model without a price
    costs an unknown amount; the offline judge costs nothing."""

    def of(self, model: str | None, *, offline: bool = False) -> Price | None:
        """The price of this model; None where it is not known."""
        return Price(prompt=0.0) if offline else self.models.get(model or "")


MILLION = 1_000_000


# What calls took, and the small file that remembers it over all tries of one scoring.
#
# The file is written in place before each call and after it, in one write, so that a killed process leaves the truth:
# what it had spent, and the most that its calls in flight could cost, which the next try counts as spent.


@dataclass(frozen=True)
class Usage:
    """Calls with their tokens; `money` counts those of known price."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        """Those of prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))


class UsageStore:
    """The file at `path`, held by this process alone; None remembers nothing.

    Raises StateError where another process holds it, or it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.found = Usage()
        """What earlier tries spent."""
        self._file: int | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.found = _read(os.pread(self._file, SIZE, 0))
        except BlockingIOError:
            self.close()
            raise StateError(
                f"{path}: another process is spending this budget now; let it end first, or give this scoring other "
                "files or another state folder (LONGREWARD_STATE)"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            self.close()
            raise StateError(
                f"{path}: what was spent cannot be read: {error}. Where the file is damaged, move it aside: what "
                "was spent before is then forgotten, and no answer is lost"
            ) from error

    def write(self, spent: Usage, held: Usage) -> None:
        """Remembers both before it returns."""
        if self._file is None:
            return
        line = json.dumps({"spent": asdict(spent), "held": asdict(held)})
        try:
            os.pwrite(self._file, line.ljust(SIZE - 1).encode() + b"\n", 0)
        except OSError as error:
            raise StateError(f"{self.path}: what was spent cannot be kept: {error.strerror or error}") from error

    def close(self) -> None:
        """Lets the next process have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _read(content: bytes) -> Usage:
    if not content.strip():
        return Usage()
    kept = json.loads(content)
    return Usage(**kept["spent"]) + Usage(**kept["held"])


SIZE = 512
