"""Asking a judge: questions, answers, the models that answer, and the ledger that keeps every exchange."""

from longreward.chat_model import Answer, ChatModel, Question, Usage
from longreward.judge.config import JudgeConfig
from longreward.judge.judge import Judge, is_overloaded, open_judge, request_summary
from longreward.judge.parsed_reply import Reading

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
