"""Sizes of the random models in tests, and the settings that their trainings share."""

from typing import Any

# The wide initialization makes the logits of a random model differ enough to compare implementations.
TINY_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}

# Every update is logged, and its learning rate is the peak one.
FAST_TRAINING: dict[str, Any] = {
    "bf16": False,
    "gradient_checkpointing": False,
    "scheduler": "constant",
    "warmup": 0,
    "log_steps": 1,
}
