"""Tests of what only a GPU shows: `pytest -m gpu`. Without a GPU they are skipped.

`LONGREWARD_GPU_TEST_DEVICE=cpu` runs them on a CPU instead, to check the tests themselves.
"""

import os
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    name = os.environ.get("LONGREWARD_GPU_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    # TF32 would round float32 products to 10 bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(name)
