"""Forecasts of what scoring costs: calls, tokens, money and time, from the actual documents and the ledger.

plan.py         the plan of a stage, of a project and of one `longreward score`
estimate.py     counts the requests of scoring
dry_run.py      the judge with which scoring runs without calls
reply_stats.py  the length of replies: measured in the ledger, else assumed
workload.py     the prompts and responses that will be scored
render.py       plans as text
file_budget.py  the budget of one `longreward score`
"""
