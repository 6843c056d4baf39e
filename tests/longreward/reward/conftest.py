"""A judge that answers from a table, for expected scores worked out by hand."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from longreward.judge import ChatModel, ChatReply, ChatRequest, TokenUsage

Table = Mapping[str, str | Exception | Mapping[str, str | Exception]]


class ScriptedModel:
    """A ChatModel. For each template: its answer, or answers by a text that one of the question's slots holds."""

    name = "scripted"

    def __init__(self, table: Table, *, latency: float = 0.0) -> None:
        self.table = table
        self.latency = latency
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request)
        await asyncio.sleep(self.latency)
        result = self.table[request.template]
        if isinstance(result, Mapping):
            slots = "\n".join(request.slots.values())
            result = next(answer for text, answer in result.items() if text in slots)
        if isinstance(result, Exception):
            raise result
        return ChatReply(result, usage=TokenUsage(prompt_tokens=100, completion_tokens=10))

    async def close(self) -> None:
        pass

    def counts(self) -> Counter[str]:
        return Counter(question.template for question in self.requests)


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedModel]:
    return ScriptedModel


_: type[ChatModel] = ScriptedModel
