"""Compare LongReward with its baselines and ablations over several seeds: `longreward study`."""
