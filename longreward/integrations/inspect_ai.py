"""The four dimensions as a scorer of inspect_ai (`pip install 'longreward[inspect-ai]'`).

    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from longreward.integrations.inspect_ai import long_reward

    sample = Sample(
        input=f"{document}\\n\\n{question}", target="", metadata={"context": document, "query": question}
    )
    task = Task(dataset=[sample], scorer=long_reward(judge="openai/gpt-4.1-mini"))

A sample needs its document as `metadata["context"]`. Its question is `metadata["query"]`, or else its input.
The value of a score is a dictionary of the four dimensions and their mean, `reward`, each from 0 to 10. One without a
score is NaN, which inspect_ai leaves out of its means, and the explanation has the reason.
"""

import asyncio
import math
from pathlib import Path

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.errors import DataError
from longreward.integrations.background_scorer import BackgroundScorer, Row
from longreward.integrations.verdict_text import rationale
from longreward.judge import JudgeConfig
from longreward.records import DIMENSIONS, ScoredResponse
from longreward.reward import LongReward, ScoreConfig

FINISH_REASONS = {"max_tokens": "length", "model_length": "length", "content_filter": "content_filter"}
MESSAGES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


@scorer(metrics={name: [mean(), stderr()] for name in (*DIMENSIONS, "reward")})  # type: ignore[untyped-decorator]
def long_reward(
    judge: str | Model | JudgeConfig | None = None, config: ScoreConfig | None = None, ledger: Path | None = None
) -> Scorer:
    """Score a response in the four dimensions.

    Args:
        judge: a model of inspect_ai or its name, which inspect_ai calls, limits, caches and logs like any other; or
            the configuration of a judge of this library. None: the offline judge, which needs no model.
        config: settings of scoring.
        ledger: file for judge replies, so that no request is repeated in a later evaluation.
    """
    if isinstance(judge, str | Model):
        # Its calls belong to the sample's transcript, so they are made in inspect_ai's event loop.
        reward = LongReward(InspectModel(get_model(judge)), _full(config), ledger)
    else:
        background = BackgroundScorer(judge, config, ledger)

    async def score(state: TaskState, target: Target) -> Score:
        row = to_row(state)
        if isinstance(judge, str | Model):
            scored = await reward.ascore(context=row.context, query=row.query, response=row.response)
        else:
            scored = await asyncio.wrap_future(background.submit(row))
        return to_score(scored)

    return score


class InspectModel:
    """A model of inspect_ai as a judge."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """The name of the model with its provider."""
        return str(self._model)

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        """Generate a reply; inspect_ai retries failed calls, and raises the errors of its providers."""
        messages: list[ChatMessage] = [
            MESSAGES[message["role"]](content=message["content"]) for message in request.messages()
        ]
        output = await self._model.generate(
            messages, config=GenerateConfig(temperature=temperature, max_tokens=request.max_tokens)
        )
        usage = output.usage
        tokens = (
            TokenUsage(usage.input_tokens, usage.output_tokens, usage.input_tokens_cache_read or 0) if usage else None
        )
        return ChatReply(
            output.completion,
            FINISH_REASONS.get(str(output.stop_reason), "stop"),
            tokens or TokenUsage(),
            output.model,
        )

    async def close(self) -> None:
        """Do nothing: inspect_ai closes its models."""


def to_row(state: TaskState) -> Row:
    """Return what is scored of a sample; raises DataError without a document."""
    context, query = state.metadata.get("context"), state.metadata.get("query", state.input_text)
    if not isinstance(context, str):
        raise DataError(
            f"sample {state.sample_id} has no document: set its metadata['context'] to the text that it asks about; "
            f"its metadata has {', '.join(map(repr, state.metadata)) or 'nothing'}"
        )
    return Row(context, str(query), state.output.completion)


def to_score(scored: ScoredResponse) -> Score:
    """Return the scores of a response as one score of inspect_ai."""
    scores = {name: verdict.score for name, verdict in scored.verdicts.items()}
    value = {name: math.nan if score is None else score for name, score in (scores | {"reward": scored.reward}).items()}
    parts = [f"{name}: {scores[name]}\n{rationale(verdict)}" for name, verdict in scored.verdicts.items()]
    judges = {verdict.judge for verdict in scored.verdicts.values() if verdict.judge}
    return Score(
        value=value,
        answer=scored.response.text,
        explanation="\n\n".join(parts),
        metadata={"judge": ", ".join(sorted(judges))},
    )


def _full(config: ScoreConfig | None) -> ScoreConfig:
    return (config or ScoreConfig()).model_copy(update={"strategy": "full"})
