"""The ledger: a SQLite file that caches every reply of a judge and every embedding.

`exchanges` and `store` read and write single rows; `reader`, `merge`, `stats` and `export` process whole files.
"""

from longreward.judge.ledger.exchanges import Exchange, Ledger, LedgerTotals, Outcome, request_id

__all__ = ["Exchange", "Ledger", "LedgerTotals", "Outcome", "request_id"]
