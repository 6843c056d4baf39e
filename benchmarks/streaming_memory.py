"""Peak memory of a benchmark's cases and of an evaluation's measures as their number grows, without models and servers.

    python benchmarks/streaming_memory.py [--cases 100 400] [--prompts 600 2400]

`cases`: opens infinitebench with one document of 100,000 characters per case and searches for overlaps with 100
training documents of 20,000 characters. `prompts`: the summary, tables and figures of two answers of each model to each
prompt, of which every prompt has its own document. Each size runs in a process of its own; prints the peak and the
ratio to the first size.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import Measurement, argument_parser, peak_rss_mb, run_in_process
from stage_memory import make_examples, write_infinitebench


def main() -> int:
    """Print a line per kind and size."""
    parser = argument_parser(__doc__)
    parser.add_argument("--cases", nargs="+", type=int, default=[100, 400])
    parser.add_argument("--prompts", nargs="+", type=int, default=[600, 2400])
    options = parser.parse_args()
    for name, measure, sizes in (
        ("cases", measure_cases, options.cases),
        ("prompts", measure_evaluation, options.prompts),
    ):
        first = None
        for size in sizes:
            result = run_in_process(measure, size)
            first = first or result.memory_mb
            print(f"{size:>7,} {name:8} {result.memory_mb:6.0f} MB ({result.memory_mb / first:.2f}), ", end="")
            print(f"{result.seconds:4.0f} s", flush=True)
    return 0


def measure_cases(cases: int) -> Measurement:
    """Open infinitebench and search for overlaps; the memory is the peak of the process."""
    from longreward.benchmarks.infinitebench.benchmark import InfiniteBench
    from longreward.data.formats import write_examples
    from longreward.flows.benchmark import TRAINING, find_training_overlap

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number, file in enumerate(TRAINING):
            write_examples(file, make_examples(50, 20_000, first=50 * number))
        write_infinitebench(Path("published"), cases, 100_000)
        started = time.monotonic()
        data, prompts, code = (Path("published") / name for name in ("data", "prompt.py", "eval_utils.py"))
        benchmark = InfiniteBench(folder=data, prompts=prompts, code=code, tasks=["longbook_qa_eng"])
        find_training_overlap([benchmark])
        return Measurement(time.monotonic() - started, peak_rss_mb())


def measure_evaluation(prompts: int) -> Measurement:
    """Summarize measures; the memory is the peak of the process."""
    from longreward.evaluation.config import JUDGED_MEASURES, EvaluateConfig, Measure
    from longreward.evaluation.example_metrics import answers_table, measures_table
    from longreward.evaluation.measures import AnswerMeasures
    from longreward.evaluation.plots import figures
    from longreward.evaluation.report import summarize
    from longreward.records import Response, Role
    from longreward.utils.jsonl import RecordsOnDisk, write_rows

    random_numbers = random.Random(0)
    config = EvaluateConfig(temperatures=[1.0, 0.0], samples=1)
    roles: tuple[Role, ...] = ("sft", "dpo")

    def make_measures() -> Iterator[AnswerMeasures]:
        for role in roles:
            for decoding in ("t1", "greedy"):
                for number in range(prompts):
                    values: dict[Measure, float] = {name: random_numbers.uniform(0, 10) for name in JUDGED_MEASURES}
                    example_id = str(number)
                    answer = Response(
                        id=f"{number}-0", example_id=example_id, query="Who?", text="word " * 60, tokens=60
                    )
                    yield AnswerMeasures(role, decoding, example_id, answer, values | {"tokens": 60.0})

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.jsonl"
        write_rows(file, (measured.row() for measured in make_measures()))
        started = time.monotonic()
        measures = RecordsOnDisk(file, AnswerMeasures.from_row)
        evaluation = summarize(config, measures)
        measures_table(measures, {str(number): "0" * 16 for number in range(prompts)})
        answers_table(measures)
        figures(evaluation, measures)
        return Measurement(time.monotonic() - started, peak_rss_mb())


if __name__ == "__main__":
    sys.exit(main())
