"""A ledger's exchanges as JSON lines, for other tools: one exchange a line, in the order in which they were kept.

    {"question": "9f…", "attempt": 1, "temperature": 0.01, "template": "support", "prompt_hash": "3c…",
     "judge": "gpt-4o", "revision": "", "text": "… [[Fully supported]]", "finish_reason": "stop",
     "model": "gpt-4o-2024-05-13",
     "prompt_tokens": 812, "completion_tokens": 40, "cached_tokens": 0, "outcome": "readable", "reason": null,
     "recorded_at": "2026-11-23T02:14:36.120000+00:00"}

Prompts are not among them, since the ledger does not keep them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longreward.judge.ledger.reader import LedgerReader
from longreward.judge.ledger.schema import EXCHANGES


@dataclass
class ExchangeExport:
    """Iterates over the rows of one ledger, read as they are asked for; `left_out` counts damaged ones, afterwards."""

    path: Path
    judge: str | None = None
    template: str | None = None
    left_out: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises DataError or StateError as `LedgerFile` does."""
        with LedgerReader(self.path) as file:
            for row in file.rows(EXCHANGES) if EXCHANGES in file.tables else ():
                if not row.is_sound:
                    self.left_out += 1
                    continue
                fields = dict(zip(EXCHANGES.columns, row.values, strict=True))
                if self.judge in (None, fields["judge"]) and self.template in (None, fields["template"]):
                    fields["recorded_at"] = datetime.fromtimestamp(fields["recorded_at"], UTC).isoformat()
                    yield fields
