"""A model and a judge that say what a test tells them to."""

from collections.abc import Callable, Sequence

from longreward.benchmarks.types import (
    Answer,
    Completion,
    GenerationRequest,
    OnProgress,
    ignore_progress,
)
from longreward.chat_model import ChatModel, ChatRequest
from longreward.chat_model import ChatReply as JudgeAnswer
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import Judge, JudgeConfig

FEW = IntervalOptions(resamples=100)


class FunctionChatClient:
    """A Speaker that answers each conversation with `answer(its last turn)`."""

    name = "function"

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.asks: list[GenerationRequest] = []
        self._answer = answer

    async def generate(
        self, requests: Sequence[GenerationRequest], *, on_progress: OnProgress = ignore_progress
    ) -> list[Completion]:
        self.asks += requests
        on_progress(len(requests))
        prompts = [ask.messages[-1].content for ask in requests]
        return [Completion(self._answer(each), 3, "stop", len(each.split())) for each in prompts]


class Scripted:
    """A judge's model that says one thing after the other, and the last one for ever; an error is raised."""

    name = "scripted"

    def __init__(self, *said: str | Exception) -> None:
        self.questions: list[ChatRequest] = []
        self.temperatures: list[float] = []
        self._said = said

    async def complete(self, request: ChatRequest, *, temperature: float) -> JudgeAnswer:
        said = self._said[min(len(self.questions), len(self._said) - 1)]
        self.questions.append(request)
        self.temperatures.append(temperature)
        if isinstance(said, Exception):
            raise said
        return JudgeAnswer(said)

    async def close(self) -> None:
        pass


def judge_of(model: ChatModel) -> Judge:
    """As both benchmarks want to be judged: at temperature 0, with five tries."""
    return Judge.from_model(model, JudgeConfig(first_temperature=0.0, retry_temperature=0.0, max_attempts=5))


def answer_to(case_id: str, text: str, *, prompt_tokens: int = 100) -> Answer:
    return Answer(case_id, (text,), (3,), ("stop",), (prompt_tokens,), prompt_truncated=False, created=0.0)
