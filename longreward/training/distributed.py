"""Which of a training's processes this one is, from the environment that `accelerate launch` sets.

Works before torch.distributed is initialized. A training in one process is its own main process.
"""

import os


def is_main_process() -> bool:
    """Whether this process logs and writes for all of them."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Return the number of processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))
