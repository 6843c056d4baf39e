"""MT-Bench: 80 questions of two turns, graded one by one and, against another model's answers, in both orders.

bench = MtBench(questions=Path("question.jsonl"), references=Path("gpt-4.jsonl"), judge_prompts=Path("…"))
answers = await bench.answer(speaker, bench.cases)
verdicts = await bench.judge(judge, list(zip(bench.cases, answers)))
"""

from longreward.benchmarks.mt_bench.benchmark import MtBench
from longreward.benchmarks.mt_bench.data import MtCase

__all__ = ["MtBench", "MtCase"]
