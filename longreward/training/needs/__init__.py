"""What a training will need, told before its weights are loaded: memory, tokens, time, and what would help."""
