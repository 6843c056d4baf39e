"""The offline judge: a deterministic stand-in for a language model that compares words, numbers and names."""
