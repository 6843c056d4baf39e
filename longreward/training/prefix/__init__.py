"""DPO with shared prefixes: each long prompt is computed once for both responses of a pair, with exact results."""
