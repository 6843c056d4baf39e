"""Times the 160 judgments of MT-Bench against a real HTTP server that answers in 0.2 s, 64 calls at once.

    LONGREWARD_REFERENCE=<folder> python benchmarks/mt_bench_judging.py

The answers are the questions' own texts said again, some 2,000 characters a turn. Ends with 1 where the judgments take
2 s or more beyond the start of the process.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from longreward.benchmarks.mt_bench import MtBench
from longreward.benchmarks.types import Answer, IntervalOptions
from longreward.judge import JudgeConfig, open_judge

LATENCY_S = 0.2
CONCURRENCY = 64
ANSWER_CHARACTERS = 2000
RUNS = 3


def main() -> int:
    """Prints the figures; 0 where the bound is kept."""
    if "LONGREWARD_REFERENCE" not in os.environ:
        print("set LONGREWARD_REFERENCE to the folder of reference data", file=sys.stderr)
        return 2
    folder = Path(os.environ["LONGREWARD_REFERENCE"]) / "mt_bench"
    started = time.perf_counter()
    import openai  # noqa: F401

    print(f"process start   {time.perf_counter() - started:.2f} s of imports, not counted below")
    prompts, references = folder / "judge_prompts.jsonl", folder / "reference_answer" / "gpt-4.jsonl"
    command = [sys.executable, "-m", "longreward.offline_judge_server", "--latency", str(LATENCY_S)]
    with subprocess.Popen([*command, "--mt-bench-prompts", str(prompts)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            bench = MtBench(folder / "question.jsonl", references=references, judge_prompts=prompts)
            seconds = [asyncio.run(judge_all(bench, url)) for _ in range(RUNS)]
        finally:
            server.terminate()
    ideal = 2 * len(bench.cases) * LATENCY_S / CONCURRENCY
    print(f"judgments       {2 * len(bench.cases)}")
    print(f"seconds         {', '.join(f'{each:.2f}' for each in seconds)} (bound: 2)")
    print(f"ideal           {ideal:.2f} = {2 * len(bench.cases)} x {LATENCY_S} / {CONCURRENCY}")
    return int(max(seconds) >= 2)


async def judge_all(bench: MtBench, url: str) -> float:
    """Seconds to judge all answers and sum them up, every exchange kept in a ledger on disk."""
    answers = [answer_to(case.id, case.turns) for case in bench.cases]
    config = JudgeConfig(
        kind="http",
        base_url=url,
        model="offline",
        max_concurrency=CONCURRENCY,
        first_temperature=bench.judge_options.temperature,
        max_attempts=bench.judge_options.attempts,
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        async with open_judge(config, ledger=Path(folder) / "ledger.sqlite") as judge:
            verdicts = await bench.judge(judge, list(zip(bench.cases, answers, strict=True)))
            flat = [verdict for of_case in verdicts for verdict in of_case]
            bench.summarize(answers, flat, IntervalOptions())
            seconds = time.perf_counter() - started
            assert len(flat) == judge.metrics()["calls"] == 160
            assert all(verdict.strict is not None for verdict in flat)
    return seconds


def answer_to(case_id: str, turns: tuple[str, ...]) -> Answer:
    """Each question, said again and again."""
    said = tuple((turn + " ") * (ANSWER_CHARACTERS // len(turn) + 1) for turn in turns)
    return Answer(case_id, said, (0, 0), (None, None), (0, 0), False, 0.0)


if __name__ == "__main__":
    sys.exit(main())
