"""What LongReward is compared with: other ways to tell a prompt's better response from its worse one.

srm       a short-context reward model ranks them, the context cut to what fits its window
contrast  the data's own answer wins against a sampled one
pairwise  the judge compares two at a time, in both orders
random    two of them, by seed: what a pair does that says nothing
"""
