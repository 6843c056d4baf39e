"""The embedded default: a corpus made from a seed, a tiny base model and an offline judge.

They need no network, key or GPU, so that the whole pipeline runs on a laptop.
"""

from pathlib import Path

# The tiny base model: where a project keeps it, and the files of this package, a symbolic link in a checkout.
TINY_BASE = "models/tiny-base"
TINY_BASE_FILES = Path(__file__).parent / "tiny_base"
