"""The benchmarks' published files: a table of their sources, fetching them, and finding them on the disk.

fetch(Path("data/benchmarks"), only=["mt_bench"])
locate("mt_bench", Path("data/benchmarks"))["question.jsonl"]
"""

from longreward.benchmarks.files.fetching import Outcome, fetch
from longreward.benchmarks.files.places import FOLDER, locate
from longreward.benchmarks.files.table import Source, read_table

__all__ = ["FOLDER", "Outcome", "Source", "fetch", "locate", "read_table"]
