"""Sizes of the random models in tests on a GPU: heads of 64, which its attention kernels support."""

from typing import Any

GPU_SIZES: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "initializer_range": 0.1,
    "pad_token_id": 0,
}
