"""Asking a judge: questions, answers, the models that answer, and the ledger that keeps every exchange."""
