"""A conversation made to fit a policy, and rendered by its chat template alone (`policy.prompt_template` is no part).

    Ask --the last turn has over max_prompt_tokens: its first and last halves--> turns
        --the chat template has no system role: that text moves before the first user's turn--> turns
        --over the window: less room for the answer, then the longest turn keeps its ends--> Fitted

A turn is cut as the published evaluations do it: its ids are halved and decoded, and the text is rendered like any
other, so that a server that renders by itself sees the same.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from longreward.benchmarks.types import ChatClient, Completion, GenerationRequest, Message, OnProgress
from longreward.errors import PolicyError
from longreward.models.generation import SamplingParams, generate, rng_stream
from longreward.models.policy import PROBE_EXAMPLE, Policy, PolicyTokenizer
from longreward.models.policy_client import Conversation, Prompt
from longreward.models.served_policy import ServedPolicy, gather_requests, request_seed
from longreward.utils.concurrency import with_progress

log = logging.getLogger(__name__)

ANSWERS_SHARE = 4
"""An answer keeps a quarter of the window at least, where it may have that many tokens; prompts are cut beyond."""
ROUNDS = 32
"""Tries at cutting turns: a text that was halved can have other tokens than its halves had."""


@dataclass(frozen=True)
class FittedPrompt:
    """What is put to the model."""

    turns: tuple[Message, ...]
    ids: list[int]  # of `turns`, rendered
    max_new_tokens: int  # fewer than asked for where the window holds no more
    cut: bool  # whether a turn lost its middle


class PromptFitter:
    """Fits conversations to one policy; `window` counts prompt and answer together."""

    def __init__(self, text: PolicyTokenizer, window: int) -> None:
        self._text, self._window = text, window
        self._system = has_system_role(text)
        self._told = False

    def __call__(self, ask: GenerationRequest) -> FittedPrompt:
        """What is put to the model; PolicyError where the conversation does not fit even when cut."""
        turns, most = ask.messages, ask.max_prompt_tokens
        if most is not None:
            turns = (*turns[:-1], self._shortened(turns[-1], most))
        cut = turns != ask.messages
        turns = turns if self._system else without_system(turns)
        ids = self._ids(turns)
        room = self._window - min(ask.max_new_tokens, max(self._window // ANSWERS_SHARE, 1))
        if len(ids) > room:
            turns = self._into(room, turns, ask.id)
            ids, cut = self._ids(turns), True
        fitted = FittedPrompt(turns, ids, min(ask.max_new_tokens, self._window - len(ids)), cut)
        self._tell(ask, fitted)
        return fitted

    def _into(self, room: int, turns: tuple[Message, ...], name: str) -> tuple[Message, ...]:
        """The turns with the longest of them cut, again and again, until all fit into `room` tokens."""
        given = over = len(self._ids(turns)) - room
        for _ in range(ROUNDS):
            lengths = [self._text.count_tokens(turn.content) for turn in turns]
            longest = lengths.index(max(lengths))
            keep = max(lengths[longest] - over, lengths[longest] // 4, 2)
            shortened = self._shortened(turns[longest], keep)
            turns = (*turns[:longest], shortened, *turns[longest + 1 :])
            over = len(self._ids(turns)) - room
            if over <= 0:
                return turns
        raise PolicyError(
            f"conversation {name}: its {len(turns)} turns have {given:,} tokens more than the {room:,} that fit beside "
            "the answer, and cutting them did not help; raise policy.window if the model can, or leave it out"
        )

    def _shortened(self, turn: Message, most: int) -> Message:
        """The turn with its first and last `most // 2` tokens where it has more than `most`."""
        ids = self._text.encode(turn.content)
        if len(ids) <= most:
            return turn
        half = most // 2
        return replace(turn, content=self._text.decode(ids[:half]) + self._text.decode(ids[len(ids) - half :]))

    def _ids(self, turns: Sequence[Message]) -> list[int]:
        return self._text.conversation_ids([vars(turn) for turn in turns])

    def _tell(self, ask: GenerationRequest, fitted: FittedPrompt) -> None:
        """Once: the table of a benchmark should not be read without it."""
        if fitted.max_new_tokens < ask.max_new_tokens and not self._told:
            self._told = True
            log.warning(
                "conversation %s: %d tokens of prompt in a window of %d leave an answer %d new tokens instead of %d; "
                "others may have too few as well, and none is told of again",
                *(ask.id, len(fitted.ids), self._window, fitted.max_new_tokens, ask.max_new_tokens),
            )


def without_system(turns: Sequence[Message]) -> tuple[Message, ...]:
    """The turns with the system's text before the first user's, a blank line between."""
    told = "".join(f"{turn.content}\n\n" for turn in turns if turn.role == "system")
    others = [turn for turn in turns if turn.role != "system"]
    first = next((place for place, turn in enumerate(others) if turn.role == "user"), None)
    if told and first is not None:
        others[first] = replace(others[first], content=told + others[first].content)
    return tuple(others)


def has_system_role(text: PolicyTokenizer) -> bool:
    """Whether the chat template knows the role: some refuse it, some drop it, some take it for an answer."""
    system, user = PROBE_EXAMPLE
    try:
        rendered = text.conversation_text([_turn("system", system), _turn("user", user)])
    except PolicyError:
        return False
    if system not in rendered:
        return False
    try:
        return rendered != text.conversation_text([_turn("assistant", system), _turn("user", user)])
    except PolicyError:  # a conversation must begin with the user's turn, or the system's
        return True


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


# Who answers a benchmark's questions: the model in this process, in batches, or a server.
#
#     Asks --fitted (`conversations.py`)--> prompts of like length --one batch, padded on the left--> Said,
# in their order
#                                           \--one request each, many at once--> Said, in their order
#
# Every Ask has a random stream of its own, from its seed and id. In a batch sums differ by about 1e-5 from those of a
# prompt alone (they are added in another order), so that an answer whose two likeliest tokens are that close, or whose
# draw falls that close to the edge between two, can take another turn; the same asks always make the same batches.


GREEDY_BELOW = 1e-4
"""Temperatures below count as 0, as FastChat takes them."""
BATCH_TOKENS = 65_536
"""Prompts and room for their answers in a batch: a cache of 8 GB for an 8B model."""
BATCH_ROWS = 64


def open_chat_client(policy: Policy | ServedPolicy, name: str) -> ChatClient:
    """Who speaks for `policy`; tables and files call it `name`."""
    return ServedChatClient(policy, name) if isinstance(policy, ServedPolicy) else LocalChatClient(policy, name)


class LocalChatClient:
    """A loaded model; answers are drawn in batches of at most `batch_rows`, and one alone however long it is."""

    def __init__(
        self, policy: Policy, name: str, *, batch_tokens: int = BATCH_TOKENS, batch_rows: int = BATCH_ROWS
    ) -> None:
        self.name = name
        self._policy, self._most_tokens, self._most_rows = policy, batch_tokens, batch_rows
        self._fit = PromptFitter(policy.text, policy.window)
        self._place = asyncio.Lock()

    async def say(self, asks: Sequence[GenerationRequest], *, tell: OnProgress = lambda done: None) -> list[Completion]:
        """One answer to each, in their order; PolicyError where a conversation cannot be rendered or does not fit."""
        fitted = [self._fit(ask) for ask in asks]
        said: dict[int, Completion] = {}
        for batch in batches(asks, fitted, tokens=self._most_tokens, rows=self._most_rows):
            async with self._place:  # of two shards at once, each would slow the other and need memory of its own
                answers = await self._drawn([asks[place] for place in batch], [fitted[place] for place in batch])
            said |= {place: self._said(fitted[place], ids) for place, ids in zip(batch, answers, strict=True)}
            tell(len(said))
        return [said[place] for place in range(len(asks))]

    async def _drawn(self, asks: list[GenerationRequest], fitted: list[FittedPrompt]) -> list[list[int]]:
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

    def _said(self, fitted: FittedPrompt, ids: list[int]) -> Completion:
        ended = bool(ids) and ids[-1] in self._policy.text.end_ids
        text = self._policy.text.decode(ids)
        return Completion(text, len(ids) - ended, "stop" if ended else "length", len(fitted.ids), fitted.cut)


class ServedChatClient:
    """A model at a server; as many requests at once as `server.max_concurrency` allows."""

    def __init__(self, policy: ServedPolicy, name: str) -> None:
        self.name = name
        self._policy = policy
        self._fit = PromptFitter(policy.text, policy.window)

    async def say(self, asks: Sequence[GenerationRequest], *, tell: OnProgress = lambda done: None) -> list[Completion]:
        """One answer to each, in their order; ServerUnavailable where asking later may help, else PolicyError."""
        fitted = [self._fit(ask) for ask in asks]
        return await gather_requests(self._policy, map(with_progress(self._asked, tell), asks, fitted))

    async def _asked(self, ask: GenerationRequest, fitted: FittedPrompt) -> Completion:
        client = self._policy.client
        [choice] = await client.complete(
            self._prompt(fitted) if client.chat else Prompt(fitted.ids, fitted.ids),
            n=1,
            seed_for=lambda number: request_seed(ask.seed, ask.id, number),
            temperature=temperature(ask),
            top_p=1.0,
            max_tokens=fitted.max_new_tokens,
        )
        full = choice.finish_reason == "length"
        tokens = fitted.max_new_tokens if full else self._policy.text.count_tokens(choice.text)
        return Completion(choice.text, tokens, choice.finish_reason, len(fitted.ids), fitted.cut)

    def _prompt(self, fitted: FittedPrompt) -> Prompt:
        """As messages, which the server tokenizes: special tokens in them are broken, so that they are text there."""
        chat = self._policy.text.chat
        sent = [{"role": t.role, "content": chat.break_controls(t.content, t.role)} for t in fitted.turns]
        unchanged = sent == [vars(turn) for turn in fitted.turns]
        return Prompt(Conversation(tuple(sent)), fitted.ids if unchanged else None)


def temperature(ask: GenerationRequest) -> float:
    """What is drawn with: 0, the likeliest token each time, for all that is next to it."""
    return ask.temperature if ask.temperature >= GREEDY_BELOW else 0.0


def batches(
    asks: Sequence[GenerationRequest], fitted: Sequence[FittedPrompt], *, tokens: int, rows: int
) -> list[list[int]]:
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
