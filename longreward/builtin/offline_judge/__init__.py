"""The offline judge: a deterministic, rule-based judge that compares words, numbers and names."""
