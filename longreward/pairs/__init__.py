"""Preference pairs for DPO: LongReward's best against its worst response, and the methods that it is compared with."""
