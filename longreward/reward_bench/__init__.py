"""How good is a reward? Labelled preferences with long contexts, and how often a reward says the same.

items.py               the format: a query about a document, its responses, how good each is
long_rewardbench.py    rows of Long-RewardBench (LCM-Lab) as such items
labelled.py            items with known labels from the built-in corpus's generator
hard.py                such that shared words do not settle, in longer contexts
builtin.py             what of these is there without files
scoring.py             LongReward's rewards for them, with each dimension left out, from one scoring
comparing.py           direct pairwise judging in both orders, as rewards
ranking.py             a reward model's rewards
agreement.py           accuracy, best of n, pairwise accuracy and rank correlation, with intervals
bench.py               all of these at once; showing.py tells what was found
"""
