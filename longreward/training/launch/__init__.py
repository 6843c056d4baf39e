"""A training on several processes, started through `accelerate launch`."""
