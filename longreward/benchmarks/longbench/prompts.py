"""The judge's two prompts: LongReward's where its evaluation code is given, else ours.

The published prompts are no files but texts within `evaluation/LongBench/3_eval.py`. They are read out of that file's
syntax tree; nothing of it is ever run.
"""

import ast
from pathlib import Path

from longreward.benchmarks.judge_prompt import JudgePrompt, marked, ours
from longreward.benchmarks.longbench.sets import Grading
from longreward.errors import DataError

MARKERS: dict[Grading, dict[str, str]] = {
    "qa": {"$Q$": "question", "$A$": "reference", "$P$": "answer"},
    "summary": {"$A$": "reference", "$P$": "answer"},  # a summary is graded without the request for it
}
FUNCTIONS: dict[Grading, str] = {"qa": "gpt_score_qa", "summary": "gpt_score_summ"}
VARIABLE = "prompt_template"


def load_prompts(published: Path | None) -> dict[Grading, JudgePrompt]:
    """Both prompts; DataError where the published file is not what it should be."""
    if published is None:
        return {grading: ours(f"longbench_{grading}", template=f"longbench/{grading}") for grading in MARKERS}
    try:
        tree = ast.parse(published.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise DataError(f"LongReward's evaluation code {published} cannot be read as Python: {error}") from error
    return {
        grading: marked(
            _text_of(tree, FUNCTIONS[grading], published),
            MARKERS[grading],
            template=f"longbench/{grading}",
            source=published,
        )
        for grading in MARKERS
    }


def _text_of(tree: ast.Module, function: str, source: Path) -> str:
    """The text that the function's variable is set to."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            for line in node.body:
                if isinstance(line, ast.Assign) and [ast.unparse(each) for each in line.targets] == [VARIABLE]:
                    value = line.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        return value.value
    raise DataError(
        f"{source} has no function {function} that sets {VARIABLE} to a text; give LongReward's "
        "evaluation/LongBench/3_eval.py, or leave it out and our own prompts are used"
    )
