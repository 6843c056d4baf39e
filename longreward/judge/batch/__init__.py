"""Judge requests through batch interfaces: requests are collected, sent in files, and answered hours later.

client.py     the judge client whose requests go through batches; everything else is as in live mode
runner.py     collects requests into batches, runs the batches on the server and distributes the results
storage.py    the batches on disk, beside the ledger, for one process at a time; the next run continues a killed one
api.py        a provider's files and batches, through the `openai` library
anthropic.py  Anthropic's Message Batches
"""
