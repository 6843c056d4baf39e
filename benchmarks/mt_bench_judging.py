"""Time of the 160 judgments of MT-Bench over HTTP with a judge that replies in 0.2 s, 64 requests at once.

    LONGREWARD_REFERENCE=<folder> python benchmarks/mt_bench_judging.py

The answers repeat the text of the questions, about 2,000 characters per turn. Exits with 1 if the judgments take 2 s
or more, without imports.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from common import argument_parser, offline_judge_server, reference_dir

from longreward.benchmarks.mt_bench import MtBench
from longreward.benchmarks.types import Answer
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import JudgeConfig, open_judge

LATENCY_S = 0.2
CONCURRENCY = 64
ANSWER_CHARACTERS = 2000
RUNS = 3
MAX_SECONDS = 2.0


def main() -> int:
    """Print the measurements; return 1 if a run takes too long."""
    argument_parser(__doc__).parse_args()
    folder = reference_dir("mt_bench")
    prompts, references = folder / "judge_prompts.jsonl", folder / "reference_answer" / "gpt-4.jsonl"
    started = time.perf_counter()
    import openai  # noqa: F401

    import_seconds = time.perf_counter() - started
    bench = MtBench(folder / "question.jsonl", references=references, judge_prompts=prompts)
    with offline_judge_server(LATENCY_S, "--mt-bench-prompts", str(prompts)) as url:
        seconds = [asyncio.run(judge_answers(bench, url)) for _ in range(RUNS)]
    judgments = 2 * len(bench.cases)
    ideal = judgments * LATENCY_S / CONCURRENCY
    print(f"imports, not included   {import_seconds:.2f} s")
    print(f"judgments               {judgments}")
    print(f"seconds                 {', '.join(f'{run:.2f}' for run in seconds)} (limit: {MAX_SECONDS:g})")
    print(f"ideal                   {ideal:.2f} = {judgments} x {LATENCY_S} / {CONCURRENCY}")
    return int(max(seconds) >= MAX_SECONDS)


async def judge_answers(bench: MtBench, url: str) -> float:
    """Judge all answers with a new ledger on disk and summarize them; return the seconds."""
    answers = [make_answer(case.id, case.turns) for case in bench.cases]
    config = JudgeConfig(
        kind="http",
        base_url=url,
        model="offline",
        max_concurrency=CONCURRENCY,
        first_temperature=bench.judge_options.temperature,
        max_attempts=bench.judge_options.max_attempts,
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        async with open_judge(config, ledger=Path(folder) / "ledger.sqlite") as judge:
            by_case = await bench.judge(judge, list(zip(bench.cases, answers, strict=True)))
            verdicts = [verdict for case_verdicts in by_case for verdict in case_verdicts]
            bench.summarize(answers, verdicts, IntervalOptions())
            seconds = time.perf_counter() - started
            assert len(verdicts) == judge.metrics()["calls"] == 2 * len(bench.cases)
            assert all(verdict.value is not None for verdict in verdicts)
    return seconds


def make_answer(case_id: str, turns: tuple[str, ...]) -> Answer:
    """Return an answer that repeats each turn of the question."""
    texts = tuple((turn + " ") * (ANSWER_CHARACTERS // len(turn) + 1) for turn in turns)
    return Answer(case_id, texts, (0, 0), (None, None), (0, 0), prompt_truncated=False, created=0.0)


if __name__ == "__main__":
    sys.exit(main())
