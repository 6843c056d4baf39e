"""How good is a reward? Labelled preferences with long contexts, and how often a reward says the same.

items.py               the format: a query about a document, its responses, how good each is
long_rewardbench.py    rows of Long-RewardBench (LCM-Lab) as such items
labelled.py            items with known labels from the built-in corpus's generator
scoring.py             LongReward's rewards for them, with each dimension left out, from one scoring
agreement.py           accuracy, pairwise accuracy and rank correlation, with intervals
"""
