"""Export the exchanges of a ledger for other tools, one row per exchange in the order of insertion.

    {"question": "9f…", "attempt": 1, "temperature": 0.01, "template": "support", "prompt_hash": "3c…",
     "judge": "gpt-4o", "revision": "", "text": "… [[Fully supported]]", "finish_reason": "stop",
     "model": "gpt-4o-2024-05-13",
     "prompt_tokens": 812, "completion_tokens": 40, "cached_tokens": 0, "outcome": "readable", "reason": null,
     "recorded_at": "2026-11-23T02:14:36.120000+00:00"}

`question` is the request id. Prompts are not exported, because the ledger does not store them.
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
    """Iterate over the exchanges of the ledger at `path`, optionally of one judge or template.

    `damaged` counts the rows that were left out because their checksum does not match; read it after the iteration.
    """

    path: Path
    judge: str | None = None
    template: str | None = None
    damaged: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield one dictionary per exchange; raise DataError or StateError as `LedgerReader` does."""
        with LedgerReader(self.path) as reader:
            for row in reader.rows(EXCHANGES):
                if not row.is_valid:
                    self.damaged += 1
                    continue
                fields = dict(zip(EXCHANGES.columns, row.values, strict=True))
                if self.judge in (None, fields["judge"]) and self.template in (None, fields["template"]):
                    # UTC, so that exports of several machines can be joined.
                    fields["recorded_at"] = datetime.fromtimestamp(fields["recorded_at"], UTC).isoformat()
                    yield fields
