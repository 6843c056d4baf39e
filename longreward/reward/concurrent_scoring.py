"""Score many examples concurrently, with results in input order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import islice

from longreward.errors import ConfigError
from longreward.judge import Judge
from longreward.records import Example, Response
from longreward.reward.scorer import ScoredExample, Scorer

MAX_BUFFERED = 4  # finished examples may wait for a slow one, up to this many times the examples in flight


async def score_examples(
    judge: Judge,
    scorer: Scorer,
    examples: Iterable[tuple[Example, Sequence[Response]]],
    *,
    progress: Callable[[int], None] | None = None,
) -> AsyncGenerator[ScoredExample, None]:
    """Yield each example with its scored responses, in input order, once it and all examples before it are finished.

    At most `prompts_at_once` examples of the scorer's settings are in flight, or as many as a batch judge asks for.
    `progress` receives the number of finished examples, whatever their order. If the judge fails, calls in flight are
    cancelled and its JudgeError is raised; the ledger has all replies so far, so that another call continues from
    there. Raises ConfigError for a batch judge with another strategy than `full`.
    """
    config = scorer.config
    if judge.prompts_in_flight and config.strategy != "full":
        raise ConfigError(f"score.strategy is {config.strategy}, but batches send all requests: set it to full")
    max_in_flight = judge.prompts_in_flight or config.prompts_at_once
    waiting = iter(examples)
    tasks: deque[asyncio.Task[ScoredExample]] = deque()
    finished = 0
    try:
        while True:
            pending = [task for task in tasks if not task.done()]
            # Examples are read from disk when they are started, so these limits also bound the memory for documents.
            free = min(max_in_flight - len(pending), MAX_BUFFERED * max_in_flight - len(tasks))
            started = [
                asyncio.create_task(scorer.score(judge, example, responses))
                for example, responses in islice(waiting, max(free, 0))
            ]
            tasks.extend(started)
            pending += started
            if not tasks:
                return
            if pending:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    # Raises the error of a failed task at once, even if slower tasks come before it in input order.
                    task.result()
                finished += len(done)
                if progress is not None:
                    progress(finished)
            while tasks and tasks[0].done():
                yield tasks.popleft().result()
    finally:
        for task in tasks:
            task.cancel()
        # Wait for the cancelled tasks: their calls still write replies to the ledger.
        await asyncio.gather(*tasks, return_exceptions=True)
