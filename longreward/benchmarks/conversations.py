"""A conversation made to fit a policy, and rendered by its chat template alone (`policy.prompt_template` is no part).

    Ask --the last turn has over max_prompt_tokens: its first and last halves--> turns
        --the chat template has no system role: that text moves before the first user's turn--> turns
        --over the window: less room for the answer, then the longest turn keeps its ends--> Fitted

A turn is cut as the published evaluations do it: its ids are halved and decoded, and the text is rendered like any
other, so that a server that renders by itself sees the same.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from longreward.benchmarks.types import GenerationRequest, Message
from longreward.errors import PolicyError
from longreward.models.policy import PROBE_EXAMPLE, PolicyTokenizer

log = logging.getLogger(__name__)

ANSWERS_SHARE = 4
"""An answer keeps a quarter of the window at least, where it may have that many tokens; prompts are cut beyond."""
ROUNDS = 32
"""Tries at cutting turns: a text that was halved can have other tokens than its halves had."""


@dataclass(frozen=True)
class Fitted:
    """What is put to the model."""

    turns: tuple[Message, ...]
    ids: list[int]  # of `turns`, rendered
    max_new_tokens: int  # fewer than asked for where the window holds no more
    cut: bool  # whether a turn lost its middle


class Fitting:
    """Fits conversations to one policy; `window` counts prompt and answer together."""

    def __init__(self, text: PolicyTokenizer, window: int) -> None:
        self._text, self._window = text, window
        self._system = has_system_role(text)
        self._told = False

    def __call__(self, ask: GenerationRequest) -> Fitted:
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
        fitted = Fitted(turns, ids, min(ask.max_new_tokens, self._window - len(ids)), cut)
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

    def _tell(self, ask: GenerationRequest, fitted: Fitted) -> None:
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
