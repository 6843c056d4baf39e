"""Asking in batches: questions are collected until all work waits for answers, and then go out together, in files.

config.py    what can be set
asker.py     a model whose calls are answered in rounds; all else is as in live mode, ledger included
rounds.py    collects, sends, waits, hands out
folder.py    the files beside the ledger, from which a killed run goes on without paying again
results.py   one line of a results file and what it means
server.py    a provider's files and batches, through the `openai` library
"""
