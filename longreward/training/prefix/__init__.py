"""SFT and DPO with shared prefixes: what texts begin with together is computed once, with exact results."""
