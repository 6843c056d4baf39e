"""Answers to cases of one turn: each is asked once, as a user's message that holds the whole prompt."""

import time
from collections.abc import Sequence

from longreward.benchmarks.types import Answer, ChatClient, GenerationRequest, Message, OnProgress


def ask(
    case: str,
    prompt: str,
    *,
    temperature: float,
    max_new_tokens: int,
    max_prompt_tokens: int | None,
    seed: int,
) -> GenerationRequest:
    """One user's turn; `case` names its random stream."""
    return GenerationRequest(case, (Message("user", prompt),), temperature, max_new_tokens, seed, max_prompt_tokens)


async def answers(
    speaker: ChatClient, cases: Sequence[str], asks: Sequence[GenerationRequest], tell: OnProgress
) -> list[Answer]:
    """What the model says to each, in their order; `cases` are the ids of what was asked."""
    said = await speaker.say(asks, tell=tell)
    now = time.time()
    return [
        Answer(case, (one.text,), (one.tokens,), (one.finish_reason,), (one.prompt_tokens,), one.cut, now)
        for case, one in zip(cases, said, strict=True)
    ]


def at_most(own: int, wanted: int | None) -> int:
    """The benchmark's own limit of tokens, or the lower one that is wanted."""
    return own if wanted is None else min(own, wanted)
