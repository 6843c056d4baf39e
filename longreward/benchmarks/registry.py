"""The names and classes of all benchmarks.

To add a benchmark, write a module with a subclass of `Benchmark` and add its name and class here. Files to download
are listed in `sources.yaml`, judge prompts are in `prompt_files/`.
"""

from typing import Any, Literal

from longreward.benchmarks.types import Benchmark

BenchmarkName = Literal[
    "longbench_chat",
    "longbench",
    "longbench_official",
    "mt_bench",
    "alpaca_eval",
    "factscore",
    "ruler",
    "longbench_v2",
    "infinitebench",
]


def benchmark_class(name: BenchmarkName) -> type[Benchmark[Any]]:
    """Import the class of a benchmark. Imports are local, so that settings can be read without loading them all."""
    match name:
        case "longbench_chat":
            from longreward.benchmarks.longbench_chat import LongBenchChat

            return LongBenchChat
        case "longbench":
            from longreward.benchmarks.longbench.benchmark import LongBench

            return LongBench
        case "longbench_official":
            from longreward.benchmarks.longbench.official import LongBenchOfficial

            return LongBenchOfficial
        case "mt_bench":
            from longreward.benchmarks.mt_bench import MtBench

            return MtBench
        case "alpaca_eval":
            from longreward.benchmarks.alpaca_eval import AlpacaEval

            return AlpacaEval
        case "factscore":
            from longreward.benchmarks.factscore import FactScore

            return FactScore
        case "ruler":
            from longreward.benchmarks.ruler.benchmark import Ruler

            return Ruler
        case "longbench_v2":
            from longreward.benchmarks.longbench_v2 import LongBenchV2

            return LongBenchV2
        case "infinitebench":
            from longreward.benchmarks.infinitebench.benchmark import InfiniteBench

            return InfiniteBench
