"""Run the SFT model and the trained one on public benchmarks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longreward.benchmarks.overlap import CaseOverlap, find_overlap
from longreward.benchmarks.plots import BARS, POINTS, length_points, rating_points, score_points
from longreward.benchmarks.report import BenchmarkReport, markdown
from longreward.benchmarks.suite import open_benchmarks
from longreward.benchmarks.types import Benchmark
from longreward.data.formats import read_examples
from longreward.data.prepare import BLANK_LINE
from longreward.tasks.benchmark_shards import answer_benchmarks, judge_benchmark
from longreward.tasks.evaluation_records import log_benchmarks
from longreward.tasks.evidence_pages import log_stage_page
from longreward.tasks.stage import StageRun, main, stage, write_points
from longreward.tasks.stage_judge import stage_budget
from longreward.utils.jsonl import open_atomic, write_rows

OUT = Path("data/benchmarked")
TRAINING = (Path("data/prepared/sft.jsonl"), Path("data/prepared/preference.jsonl"))
MIN_WORD_BYTES = 3  # of a Chinese character; words of other languages have more
PLOTS = {"scores": (score_points, BARS), "ratings": (rating_points, BARS), "length": (length_points, POINTS)}


@stage
async def benchmark(run: StageRun) -> None:
    """Run the SFT model and the trained one on public benchmarks."""
    config = run.params.benchmark
    benchmarks = open_benchmarks(config)
    overlaps = find_training_overlap(benchmarks)  # before the answers, so that a bad file stops the stage early
    answers = await answer_benchmarks(run, benchmarks)
    with stage_budget(run, config.budget) as budget:
        results = [await judge_benchmark(run, benchmark, answers, budget, out=OUT) for benchmark in benchmarks]
    for name, cases in overlaps.items():
        write_rows(OUT / name / "overlap.jsonl", (vars(case) for case in cases))
    report = BenchmarkReport(results, config.interval_options, config.parsing, overlaps)
    with open_atomic(OUT / "report.md") as file:
        file.write(markdown(report))
    with open_atomic(OUT / "metrics.json") as file:
        json.dump({role: report.metrics(role) for role in config.models}, file, indent=1)
    for name, (points, columns) in PLOTS.items():
        write_points(Path(f"plots/benchmark-{name}.csv"), points(report), columns)
    run.log_metrics(report.headline())
    log_benchmarks(run.mlflow, report)
    log_stage_page(run, ["benchmark"], benchmarks=benchmarks)


def find_training_overlap(benchmarks: Sequence[Benchmark[Any]]) -> dict[str, list[CaseOverlap]]:
    """Return the overlap of each benchmark's cases with the examples that the models were trained on."""
    # All benchmarks at once, because reading and hashing the examples takes most of the time.
    cases = (
        (f"{benchmark.name}/{case.id}", benchmark.case_text(case))
        for benchmark in benchmarks
        for case in benchmark.cases
    )
    # No example if the other splits have all documents.
    files = [file for file in TRAINING if file.stat().st_size > len(BLANK_LINE)]

    def texts() -> Iterator[tuple[str, str]]:
        for file in files:
            for example in read_examples(file):
                yield example.id, "\n".join(filter(None, (example.context, example.query, example.answer)))

    size = sum(file.stat().st_size for file in files)
    overlaps = iter(find_overlap(cases, texts, max_sequences=size // MIN_WORD_BYTES))
    return {
        benchmark.name: [replace(next(overlaps), case_id=case.id) for case in benchmark.cases]
        for benchmark in benchmarks
    }


if __name__ == "__main__":
    main(benchmark)
