"""The judge's two prompts: LongReward's where its evaluation code is given, else ours.

The published prompts are no files but texts within `evaluation/LongBench/3_eval.py`.
"""

from pathlib import Path

from longreward.benchmarks.longbench.sets import Grading
from longreward.benchmarks.published_code import text_in
from longreward.judge.prompt_template import JudgePrompt, load_builtin_prompt, parse_marked_prompt

MARKERS: dict[Grading, dict[str, str]] = {
    "qa": {"$Q$": "question", "$A$": "reference", "$P$": "answer"},
    "summary": {"$A$": "reference", "$P$": "answer"},  # a summary is graded without the request for it
}
FUNCTIONS: dict[Grading, str] = {"qa": "gpt_score_qa", "summary": "gpt_score_summ"}


def load_prompts(published: Path | None) -> dict[Grading, JudgePrompt]:
    """Both prompts; DataError where the published file is not what it should be."""
    if published is None:
        return {
            grading: load_builtin_prompt(f"longbench_{grading}", template=f"longbench/{grading}") for grading in MARKERS
        }
    return {
        grading: parse_marked_prompt(
            text_in(published, "prompt_template", function=FUNCTIONS[grading]),
            MARKERS[grading],
            template=f"longbench/{grading}",
            source=published,
        )
        for grading in MARKERS
    }
