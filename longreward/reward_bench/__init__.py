"""Compare rewards with labelled preferences, most of them about long documents.

items.py               labelled items and their own format
public_formats.py      the formats of public sets: JudgeBench, RewardBench 2, HH-RLHF, …
item_files.py          files of items, without their bad rows
builtin_items.py       items with known labels from the built-in corpus's generator
optional_items.py      such items for rubrics and citations
rewards.py             the rewards of LongReward and its ablations, of pairwise judging, of a reward model
agreement.py           accuracy, best of n, pairwise accuracy and rank correlation, with intervals
published_measures.py  the measures that public benchmarks define for themselves
bench.py               the whole benchmark
render.py              its result as Markdown
heldout.py             a distilled reward model against the judge's scores of held-out documents
"""
