"""Helpers of the benchmark scripts: processes of their own, peak memory, judge servers and random models."""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

# Idle OpenMP threads spin by default and slow down other processes. torch reads this when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MODELS: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 32_000,
        "dtype": "float32",
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "dtype": "bfloat16",
    },
}


class Measurement(NamedTuple):
    """Duration and memory of one alternative."""

    seconds: float
    memory_mb: float  # peak above the memory before the measured work


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that prints the docstring of a script as its help."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def reference_dir(name: str) -> Path:
    """Return a folder of the published reference data; exit if its location is not configured."""
    if "LONGREWARD_REFERENCE" not in os.environ:
        sys.exit("set LONGREWARD_REFERENCE to the folder of reference data")
    return Path(os.environ["LONGREWARD_REFERENCE"]) / name


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process since its start (Linux: `ru_maxrss` counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_gpu_peak() -> float:
    """Start a new measurement of torch's peak memory on the GPU; return the allocated memory in MB, 0 without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20


def run_in_process(function: Callable[..., Measurement], *args: Any) -> Measurement:
    """Call a function in a new process, so that its peak memory is its own.

    On Linux a child inherits the peak of its parent, so a script must not load large objects before this call.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        return executor.submit(function, *args).result()


def print_comparison(measurements: Mapping[str, Measurement]) -> None:
    """Print one line per alternative with its ratios to the first one."""
    baseline = next(iter(measurements.values()))
    width = max(map(len, measurements))
    for name, measurement in measurements.items():
        speedup = baseline.seconds / measurement.seconds
        saving = baseline.memory_mb / max(measurement.memory_mb, 1)
        print(
            f"  {name:{width}} {measurement.seconds:8.2f} s {measurement.memory_mb:8,.0f} MB"
            f"   {speedup:5.1f}x faster, {saving:5.1f}x less memory"
        )


@contextlib.contextmanager
def offline_judge_server(latency_s: float, *options: str) -> Iterator[str]:
    """Serve the offline judge in another process; yield its base URL."""
    command = [sys.executable, "-m", "longreward.offline_judge_server", "--latency", str(latency_s), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def random_llama(*, dtype: str = "float32", **config: Any) -> Any:
    """Return a Llama with random weights, the same for each call, on the GPU if there is one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return LlamaForCausalLM._from_config(LlamaConfig(**config, dtype=dtype), attn_implementation="sdpa")
