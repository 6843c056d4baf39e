"""Public benchmarks of long-context and chat models."""
