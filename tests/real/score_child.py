"""Score two responses in a process that a test kills: python score_child.py URL MODEL LEDGER."""

import asyncio
import sys
from pathlib import Path

from longreward.judge import JudgeConfig, open_judge
from longreward.records import Example, Response
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import ScoredExample, Scorer

EXAMPLE = Example(
    id="keld",
    document_id="keld",
    context="Keld is a village on the river Osten. Ann Lee founded it in 1905, together with two of her brothers. "
    "The stone bridge was built in 1931 and replaced a ferry. Most of the 400 people who live there work in the mill.",
    query="Who founded Keld, and when was the bridge built?",
)
TEXTS = ("Ann Lee founded Keld in 1905. The stone bridge was built in 1931.", "I am sorry, I do not know.")
RESPONSES = [
    Response(id=f"keld-{number}", example_id=EXAMPLE.id, query=EXAMPLE.query, text=text)
    for number, text in enumerate(TEXTS)
]


async def score(config: JudgeConfig, ledger: Path) -> tuple[ScoredExample, dict[str, float]]:
    """Return the scored responses and the metrics of the judge."""
    async with open_judge(config, ledger=ledger) as judge, Scorer(ScoreConfig()) as scorer:
        return await scorer.score(judge, EXAMPLE, RESPONSES), judge.metrics()


if __name__ == "__main__":
    url, model, ledger = sys.argv[1:]
    # One after the other, so that the ledger grows step by step.
    config = JudgeConfig(kind="http", model=model, base_url=url, max_concurrency=1, timeout_s=600)
    asyncio.run(score(config, Path(ledger)))
