"""Asking in batches: questions are collected until all work waits for answers, and then go out together, in files.

config.py    what can be set
opening.py   opens what follows for each judge
asker.py     a model whose calls are answered in rounds; all else is as in live mode, ledger included
rounds.py    collects, and hands out what came back
sending.py   a batch to its server and back
server.py    a provider's files and batches, through the `openai` library
folder.py    the batches that lie beside the ledger, from which a killed run goes on without paying again
record.py    one of them
spool.py     lines that are in none yet
results.py   a line of a results file and what it means
handing.py   what to tell people who have files answered by another program
"""
