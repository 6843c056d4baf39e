"""MT-Bench: 80 two-turn questions, rated one by one and optionally compared with another model's answers.

bench = MtBench(Path("question.jsonl"), references=Path("gpt-4.jsonl"), judge_prompts=Path("judge_prompts.jsonl"))
answers = await bench.answer(client, bench.cases)
verdicts = await bench.judge(judge, list(zip(bench.cases, answers)))
"""

from longreward.benchmarks.mt_bench.benchmark import MtBench
from longreward.benchmarks.mt_bench.data import MtCase

__all__ = ["MtBench", "MtCase"]
