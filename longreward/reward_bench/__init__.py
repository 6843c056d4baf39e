"""Compare rewards with labelled preferences about long documents.

items.py           the item format, its files and those of Long-RewardBench
builtin_items.py   items with known labels from the built-in corpus's generator
rewards.py         the rewards of LongReward and its ablations, of pairwise judging, of a reward model
agreement.py       accuracy, best of n, pairwise accuracy and rank correlation, with intervals
bench.py           the whole benchmark
render.py          its result as Markdown and JSON
"""
