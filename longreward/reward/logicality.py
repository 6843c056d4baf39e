"""Logicality: no contradiction, no wrong inference or calculation (paper, section 3.1)."""

from longreward.judge import Judge
from longreward.judge.prompts import PromptSet
from longreward.records import Verdict
from longreward.reward.verdicts import rate
from longreward.utils.language import detect_language


async def judge_logicality(judge: Judge, prompts: PromptSet, *, query: str, response: str) -> Verdict:
    """One call: the judge sees query and response."""
    template = prompts.template("logicality", detect_language(query, response))
    return await rate(judge, template.ask({"question": query, "answer": response}), prompts.parsing)
