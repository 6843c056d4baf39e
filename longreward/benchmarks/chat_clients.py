"""Who answers a benchmark's questions: the model in this process, in batches, or a server.

    Asks --fitted (`conversations.py`)--> prompts of like length --one batch, padded on the left--> Said, in their order
                                          \\--one request each, many at once--> Said, in their order

Every Ask has a random stream of its own, from its seed and id. In a batch sums differ by about 1e-5 from those of a
prompt alone (they are added in another order), so that an answer whose two likeliest tokens are that close, or whose
draw falls that close to the edge between two, can take another turn; the same asks always make the same batches.
"""

import asyncio
import threading
from collections.abc import Sequence

from longreward.benchmarks.conversations import Fitted, Fitting
from longreward.benchmarks.types import ChatClient, Completion, GenerationRequest, Tell
from longreward.models.generation import SamplingParams, generate, rng_stream
from longreward.models.policy import Policy
from longreward.models.policy_client import Conversation, Prompt
from longreward.models.served_policy import ServedPolicy, gather_requests, request_seed
from longreward.utils.concurrency import with_progress

GREEDY_BELOW = 1e-4
"""Temperatures below count as 0, as FastChat takes them."""
BATCH_TOKENS = 65_536
"""Prompts and room for their answers in a batch: a cache of 8 GB for an 8B model."""
BATCH_ROWS = 64


def speaker(policy: Policy | ServedPolicy, name: str) -> ChatClient:
    """Who speaks for `policy`; tables and files call it `name`."""
    return Served(policy, name) if isinstance(policy, ServedPolicy) else InProcess(policy, name)


class InProcess:
    """A loaded model; answers are drawn in batches of at most `batch_rows`, and one alone however long it is."""

    def __init__(
        self, policy: Policy, name: str, *, batch_tokens: int = BATCH_TOKENS, batch_rows: int = BATCH_ROWS
    ) -> None:
        self.name = name
        self._policy, self._most_tokens, self._most_rows = policy, batch_tokens, batch_rows
        self._fit = Fitting(policy.text, policy.window)
        self._place = asyncio.Lock()

    async def say(self, asks: Sequence[GenerationRequest], *, tell: Tell = lambda done: None) -> list[Completion]:
        """One answer to each, in their order; PolicyError where a conversation cannot be rendered or does not fit."""
        fitted = [self._fit(ask) for ask in asks]
        said: dict[int, Completion] = {}
        for batch in batches(asks, fitted, tokens=self._most_tokens, rows=self._most_rows):
            async with self._place:  # of two shards at once, each would slow the other and need memory of its own
                answers = await self._drawn([asks[place] for place in batch], [fitted[place] for place in batch])
            said |= {place: self._said(fitted[place], ids) for place, ids in zip(batch, answers, strict=True)}
            tell(len(said))
        return [said[place] for place in range(len(asks))]

    async def _drawn(self, asks: list[GenerationRequest], fitted: list[Fitted]) -> list[list[int]]:
        """A batch's answers; in a thread, which ends at its next token once nobody waits for it."""
        unwanted = threading.Event()
        try:
            drawn = await asyncio.to_thread(
                generate,
                self._policy,
                [each.ids for each in fitted],
                [rng_stream(ask.seed, ask.id, 0, ask.max_new_tokens) for ask in asks],
                SamplingParams(temperature(asks[0])),
                limits=[each.max_new_tokens for each in fitted],
                stopped=unwanted.is_set,
            )
        finally:
            unwanted.set()
        return [ids for [ids] in drawn]

    def _said(self, fitted: Fitted, ids: list[int]) -> Completion:
        ended = bool(ids) and ids[-1] in self._policy.text.end_ids
        text = self._policy.text.decode(ids)
        return Completion(text, len(ids) - ended, "stop" if ended else "length", len(fitted.ids), fitted.cut)


class Served:
    """A model at a server; as many requests at once as `server.max_concurrency` allows."""

    def __init__(self, policy: ServedPolicy, name: str) -> None:
        self.name = name
        self._policy = policy
        self._fit = Fitting(policy.text, policy.window)

    async def say(self, asks: Sequence[GenerationRequest], *, tell: Tell = lambda done: None) -> list[Completion]:
        """One answer to each, in their order; ServerUnavailable where asking later may help, else PolicyError."""
        fitted = [self._fit(ask) for ask in asks]
        return await gather_requests(self._policy, map(with_progress(self._asked, tell), asks, fitted))

    async def _asked(self, ask: GenerationRequest, fitted: Fitted) -> Completion:
        client = self._policy.client
        [choice] = await client.answers(
            self._prompt(fitted) if client.chat else Prompt(fitted.ids, fitted.ids),
            n=1,
            seed_of=lambda number: request_seed(ask.seed, ask.id, number),
            temperature=temperature(ask),
            top_p=1.0,
            max_tokens=fitted.max_new_tokens,
        )
        full = choice.finish_reason == "length"
        tokens = fitted.max_new_tokens if full else self._policy.text.count_tokens(choice.text)
        return Completion(choice.text, tokens, choice.finish_reason, len(fitted.ids), fitted.cut)

    def _prompt(self, fitted: Fitted) -> Prompt:
        """As messages, which the server tokenizes: special tokens in them are broken, so that they are text there."""
        chat = self._policy.text.chat
        sent = [{"role": t.role, "content": chat.break_controls(t.content, t.role)} for t in fitted.turns]
        unchanged = sent == [vars(turn) for turn in fitted.turns]
        return Prompt(Conversation(tuple(sent)), fitted.ids if unchanged else None)


def temperature(ask: GenerationRequest) -> float:
    """What is drawn with: 0, the likeliest token each time, for all that is next to it."""
    return ask.temperature if ask.temperature >= GREEDY_BELOW else 0.0


def batches(asks: Sequence[GenerationRequest], fitted: Sequence[Fitted], *, tokens: int, rows: int) -> list[list[int]]:
    """The places of asks that are drawn together: of one temperature and limit, longest prompts first.

    The longest prompt of a batch with its answer, times the rows, is at most `tokens`; one row is always allowed.
    """
    kind = [(temperature(ask), ask.max_new_tokens) for ask in asks]
    found: list[list[int]] = []
    for place in sorted(range(len(asks)), key=lambda place: (kind[place], -len(fitted[place].ids))):
        first = found[-1][0] if found else place
        most = min(rows, tokens // (len(fitted[first].ids) + asks[first].max_new_tokens))
        if found and kind[place] == kind[first] and len(found[-1]) < most:
            found[-1].append(place)
        else:
            found.append([place])
    return found
