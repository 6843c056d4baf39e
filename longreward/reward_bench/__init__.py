"""Compare rewards with labelled preferences about long documents.

items.py           labelled items and their own format
public_formats.py  the formats of public sets: JudgeBench, RewardBench 2, HH-RLHF, …
item_files.py      files of items, without their bad rows
builtin_items.py   items with known labels from the built-in corpus's generator
rewards.py         the rewards of LongReward and its ablations, of pairwise judging, of a reward model
published_measures.py  the measures that public benchmarks define for themselves
agreement.py       accuracy, best of n, pairwise accuracy and rank correlation, with intervals
bench.py           the whole benchmark
render.py          its result as Markdown and JSON
"""
