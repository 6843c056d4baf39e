"""Query judges: clients, prompts, parsers and the ledger that records every exchange.

Start reading at `judge.py`, which lists the modules that one query passes through.
"""

from longreward.chat_model import ChatModel, ChatReply, ChatRequest, TokenUsage
from longreward.judge.attempts import ParsedReply
from longreward.judge.config import JudgeConfig
from longreward.judge.judge import Judge, is_overloaded, open_judge, request_summary

__all__ = [
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "Judge",
    "JudgeConfig",
    "ParsedReply",
    "TokenUsage",
    "is_overloaded",
    "open_judge",
    "request_summary",
]
