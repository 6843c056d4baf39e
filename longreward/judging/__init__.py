"""Asking a judge: questions, answers, the models that answer, and the ledger that keeps every exchange."""

from longreward.judging.chat import Answer, ChatModel, Question, Usage
from longreward.judging.config import JudgeConfig
from longreward.judging.judge import Judge, is_overloaded, open_judge, request_summary
from longreward.judging.readings import Reading

__all__ = [
    "Answer",
    "ChatModel",
    "Judge",
    "JudgeConfig",
    "Question",
    "Reading",
    "Usage",
    "is_overloaded",
    "open_judge",
    "request_summary",
]
