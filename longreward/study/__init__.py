"""The study: LongReward against its baselines and ablations, each arm over several seeds, and what the runs show."""
