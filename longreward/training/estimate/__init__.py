"""What a training will need, told before its weights are loaded: memory, tokens, and what would help."""
