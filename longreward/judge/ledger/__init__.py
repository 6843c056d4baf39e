"""The ledger: every answer of a judge and every vector, kept as it arrives in one SQLite file.

`exchanges` and `store` write and serve; `file`, `stats`, `merge`, `export` and `verify` look at whole files.
"""

from longreward.judge.ledger.exchanges import Exchange, Ledger, LedgerTotals, Outcome, request_id

__all__ = ["Exchange", "Ledger", "LedgerTotals", "Outcome", "request_id"]
