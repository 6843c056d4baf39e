"""A policy and a judge whose replies a test defines, and the offline judge over HTTP."""

from collections.abc import Callable, Sequence

from longreward.benchmarks.types import (
    Answer,
    Completion,
    GenerationRequest,
    OnProgress,
    ignore_progress,
)
from longreward.chat_model import ChatModel, ChatReply, ChatRequest
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import Judge, JudgeConfig

FAST_INTERVALS = IntervalOptions(resamples=100)


class FunctionChatClient:
    """A ChatClient that answers each conversation with `answer(last turn)`."""

    name = "function"

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.requests: list[GenerationRequest] = []
        self._answer = answer

    async def generate(
        self, requests: Sequence[GenerationRequest], *, on_progress: OnProgress = ignore_progress
    ) -> list[Completion]:
        self.requests += requests
        on_progress(len(requests))
        prompts = [request.messages[-1].content for request in requests]
        return [Completion(self._answer(prompt), 3, "stop", len(prompt.split())) for prompt in prompts]


class ScriptedModel:
    """A ChatModel that returns the replies in turn, and then the last one again; an exception is raised."""

    name = "scripted"

    def __init__(self, *replies: str | Exception) -> None:
        self.requests: list[ChatRequest] = []
        self.temperatures: list[float] = []
        self._replies = replies

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        reply = self._replies[min(len(self.requests), len(self._replies) - 1)]
        self.requests.append(request)
        self.temperatures.append(temperature)
        if isinstance(reply, Exception):
            raise reply
        return ChatReply(reply)

    async def close(self) -> None:
        pass


def open_scripted_judge(model: ChatModel) -> Judge:
    """Open a judge with the settings of both LongBench benchmarks: temperature 0 and five attempts."""
    return Judge.from_model(model, JudgeConfig(first_temperature=0.0, retry_temperature=0.0, max_attempts=5))


def make_answer(case_id: str, text: str, *, prompt_tokens: int = 100) -> Answer:
    return Answer(case_id, (text,), (3,), ("stop",), (prompt_tokens,), prompt_truncated=False, created=0.0)
