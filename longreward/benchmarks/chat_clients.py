"""Chat clients: the model in this process, in batches, or a model on a server.

Requests are first fitted to the policy's window and rendered by its chat template (`policy.prompt_template` is not
used):

1. A last turn with more than `max_prompt_tokens` keeps its first and last halves.
2. If the chat template has no system role, the system text moves in front of the first user turn.
3. Beyond the window, the answer gets fewer tokens; then the longest turns are truncated in the middle.

Turns are truncated as in the published evaluations: the token ids are halved and decoded, and the text is rendered like
any other, so that a server that renders itself sees the same text.

Every request has its own random stream, from its seed and id. Logits in a batch differ by about 1e-5 from those of a
single prompt, because sums are added in a different order. An answer can therefore change if two tokens are that close;
the same requests always form the same batches.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from longreward.benchmarks.types import (
    ChatClient,
    Completion,
    GenerationRequest,
    Message,
    OnProgress,
    ignore_progress,
)
from longreward.errors import PolicyError
from longreward.models.generation import SamplingParams, generate, rng_stream
from longreward.models.policy import PROBE_EXAMPLE, Policy, PolicyTokenizer
from longreward.models.policy_client import Prompt
from longreward.models.served_policy import ServedPolicy, gather_requests, make_prompt, request_seed
from longreward.utils.concurrency import with_progress

log = logging.getLogger(__name__)

MIN_SAMPLING_TEMPERATURE = 1e-4  # lower temperatures are greedy, as in FastChat
BATCH_TOKENS = 65_536  # prompts and answers of a batch: a KV cache of 8 GB for an 8B model
BATCH_ROWS = 64
ANSWER_WINDOW_SHARE = 4  # an answer may use at least 1/4 of the window before its prompt is truncated
MAX_TRUNCATIONS = 32  # the halves of a text can have other tokens when they are joined, so that one may not be enough


def open_chat_client(policy: Policy | ServedPolicy, name: str) -> ChatClient:
    """Return the chat client for a policy; `name` is the model's name in files and tables."""
    return ServedChatClient(policy, name) if isinstance(policy, ServedPolicy) else LocalChatClient(policy, name)


class LocalChatClient:
    """A loaded model; answers are sampled in batches of at most `batch_rows` rows and `batch_tokens` tokens."""

    def __init__(
        self, policy: Policy, name: str, *, batch_tokens: int = BATCH_TOKENS, batch_rows: int = BATCH_ROWS
    ) -> None:
        self.name = name
        self._policy, self._batch_tokens, self._batch_rows = policy, batch_tokens, batch_rows
        self._fit = PromptFitter(policy.encoder, policy.window)
        self._lock = asyncio.Lock()

    @property
    def window(self) -> int:
        """The maximum number of prompt and answer tokens together."""
        return self._policy.window

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the tokens of the rendered prompt, without truncation."""
        return self._fit.count_tokens(request)

    async def generate(
        self, requests: Sequence[GenerationRequest], *, on_progress: OnProgress = ignore_progress
    ) -> list[Completion]:
        """Return one completion per request, in order. Raises PolicyError for a conversation that does not fit."""
        prompts = [self._fit(request) for request in requests]
        completions: dict[int, Completion] = {}
        for batch in make_batches(requests, prompts, max_tokens=self._batch_tokens, max_rows=self._batch_rows):
            # Two shards at the same time would be slower and need memory for two batches.
            async with self._lock:
                outputs = await self._generate_batch([requests[i] for i in batch], [prompts[i] for i in batch])
            for i, ids in zip(batch, outputs, strict=True):
                stopped = bool(ids) and ids[-1] in self._policy.encoder.end_ids
                completions[i] = Completion(
                    self._policy.encoder.decode(ids),
                    tokens=len(ids) - stopped,
                    finish_reason="stop" if stopped else "length",
                    prompt_tokens=len(prompts[i].ids),
                    prompt_truncated=prompts[i].truncated,
                )
            on_progress(len(completions))
        return [completions[i] for i in range(len(requests))]

    async def _generate_batch(
        self, requests: Sequence[GenerationRequest], prompts: Sequence["FittedPrompt"]
    ) -> list[list[int]]:
        """Return the token ids of a batch. Runs in a thread, which ends at its next token if the task is cancelled."""
        cancelled = threading.Event()
        try:
            outputs = await asyncio.to_thread(
                generate,
                self._policy,
                [prompt.ids for prompt in prompts],
                [rng_stream(request.seed, request.id, 0, request.max_new_tokens) for request in requests],
                SamplingParams(sampling_temperature(requests[0])),
                names=[request.id for request in requests],
                limits=[prompt.max_new_tokens for prompt in prompts],
                stopped=cancelled.is_set,
            )
        finally:
            cancelled.set()
        return [ids for [ids] in outputs]


class ServedChatClient:
    """A model on a server; `server.max_concurrency` limits the concurrent requests."""

    def __init__(self, policy: ServedPolicy, name: str) -> None:
        self.name = name
        self._policy = policy
        self._fit = PromptFitter(policy.encoder, policy.window)

    @property
    def window(self) -> int:
        """The maximum number of prompt and answer tokens together."""
        return self._policy.window

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the tokens of the rendered prompt, without truncation."""
        return self._fit.count_tokens(self._without_prefix(request))

    async def generate(
        self, requests: Sequence[GenerationRequest], *, on_progress: OnProgress = ignore_progress
    ) -> list[Completion]:
        """Return one completion per request, in order.

        Raises ServerUnavailable if a later attempt may succeed, otherwise PolicyError.
        """
        requests = [self._without_prefix(request) for request in requests]
        prompts = [self._fit(request) for request in requests]
        return await gather_requests(self._policy, map(with_progress(self._generate, on_progress), requests, prompts))

    def _without_prefix(self, request: GenerationRequest) -> GenerationRequest:
        """Move the answer's prefix to the end of the last turn if the server renders the turns."""
        if not (self._policy.client.chat and request.answer_prefix):
            return request
        *turns, last = request.messages
        last = replace(last, content=last.content + request.answer_prefix)
        return replace(request, messages=(*turns, last), answer_prefix="")

    async def _generate(self, request: GenerationRequest, prompt: "FittedPrompt") -> Completion:
        client, encoder = self._policy.client, self._policy.encoder
        if request.chat:
            rendered = make_prompt(self._policy, [vars(turn) for turn in prompt.turns], prompt.ids)
        elif client.chat:  # the server tokenizes the text itself
            rendered = Prompt({"prompt": prompt.turns[0].content})
        else:
            rendered = Prompt({"prompt": prompt.ids}, prompt.ids)
        [choice] = await client.complete(
            rendered,
            n=1,
            seed_for=lambda number: request_seed(request.seed, request.id, number),
            temperature=sampling_temperature(request),
            top_p=1.0,
            max_tokens=prompt.max_new_tokens,
        )
        is_full = choice.finish_reason == "length"
        tokens = prompt.max_new_tokens if is_full else encoder.count_tokens(choice.text)
        return Completion(choice.text, tokens, choice.finish_reason, len(prompt.ids), prompt.truncated)


def sampling_temperature(request: GenerationRequest) -> float:
    """Return the temperature of a request; 0 (greedy) for very low ones."""
    return request.temperature if request.temperature >= MIN_SAMPLING_TEMPERATURE else 0.0


def make_batches(
    requests: Sequence[GenerationRequest], prompts: Sequence["FittedPrompt"], *, max_tokens: int, max_rows: int
) -> list[list[int]]:
    """Return the indices of the requests of each batch: equal temperature and limit, longest prompts first.

    The rows times the longest prompt with its answer are at most `max_tokens`; one row is always allowed.
    """
    kinds = [(sampling_temperature(request), request.max_new_tokens) for request in requests]
    batches: list[list[int]] = []
    for i in sorted(range(len(requests)), key=lambda i: (kinds[i], -len(prompts[i].ids))):
        first = batches[-1][0] if batches else i
        rows = min(max_rows, max_tokens // (len(prompts[first].ids) + requests[first].max_new_tokens))
        if batches and kinds[i] == kinds[first] and len(batches[-1]) < rows:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@dataclass(frozen=True)
class FittedPrompt:
    """A conversation that fits into the policy's window."""

    turns: tuple[Message, ...]
    ids: list[int]  # of `turns`, rendered by the chat template
    max_new_tokens: int  # lower than requested if the window has no more room
    truncated: bool  # whether a turn lost its middle


class PromptFitter:
    """Fits conversations to one policy; `window` counts prompt and answer together."""

    def __init__(self, encoder: PolicyTokenizer, window: int) -> None:
        self._encoder, self._window = encoder, window
        self._has_system_role = has_system_role(encoder)
        self._warned = False

    def __call__(self, request: GenerationRequest) -> FittedPrompt:
        """Fit one conversation. Raises PolicyError if it does not fit even after truncation."""
        turns = request.messages
        if request.max_prompt_tokens is not None:
            turns = (*turns[:-1], self._truncate(turns[-1], request.max_prompt_tokens))
        truncated = turns != request.messages
        turns = turns if self._has_system_role else merge_system_turn(turns)
        ids = self._ids(turns, request)
        max_prompt_tokens = self._window - min(request.max_new_tokens, max(self._window // ANSWER_WINDOW_SHARE, 1))
        if len(ids) > max_prompt_tokens:
            turns = self._truncate_longest(turns, max_prompt_tokens, request)
            ids, truncated = self._ids(turns, request), True
        max_new_tokens = min(request.max_new_tokens, self._window - len(ids))
        # Benchmark scores can suffer from answers with less room than requested.
        if max_new_tokens < request.max_new_tokens and not self._warned:
            self._warned = True
            log.warning(
                "conversation %s: %d prompt tokens in a window of %d leave %d instead of %d new tokens for the answer; "
                "other answers may be shortened as well, without another warning",
                *(request.id, len(ids), self._window, max_new_tokens, request.max_new_tokens),
            )
        return FittedPrompt(turns, ids, max_new_tokens, truncated)

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the tokens of the rendered prompt, without truncation."""
        turns = request.messages if self._has_system_role else merge_system_turn(request.messages)
        return len(self._ids(turns, request))

    def _truncate_longest(
        self, turns: tuple[Message, ...], max_tokens: int, request: GenerationRequest
    ) -> tuple[Message, ...]:
        """Truncate the longest turn repeatedly until the conversation has at most `max_tokens` tokens."""
        excess = initial_excess = len(self._ids(turns, request)) - max_tokens
        for _ in range(MAX_TRUNCATIONS):
            lengths = [self._encoder.count_tokens(turn.content) for turn in turns]
            longest = lengths.index(max(lengths))
            keep = max(lengths[longest] - excess, lengths[longest] // 4, 2)
            turns = (*turns[:longest], self._truncate(turns[longest], keep), *turns[longest + 1 :])
            excess = len(self._ids(turns, request)) - max_tokens
            if excess <= 0:
                return turns
        raise PolicyError(
            f"conversation {request.id}: its {len(turns)} turns have {initial_excess:,} tokens more than the "
            f"{max_tokens:,} that fit with the answer, and truncation did not help; raise policy.window if the model "
            "can, or leave the conversation out"
        )

    def _truncate(self, turn: Message, max_tokens: int) -> Message:
        """Return the turn with its first and last `max_tokens // 2` tokens if it is longer."""
        ids = self._encoder.encode(turn.content)
        if len(ids) <= max_tokens:
            return turn
        half = max_tokens // 2
        return replace(turn, content=self._encoder.decode(ids[:half]) + self._encoder.decode(ids[len(ids) - half :]))

    def _ids(self, turns: Sequence[Message], request: GenerationRequest) -> list[int]:
        if not request.chat:
            [turn] = turns
            text = turn.content + request.answer_prefix
            return self._encoder.chat.encode_text(text, add_special_tokens=True)
        ids = self._encoder.conversation_ids([vars(turn) for turn in turns])
        return ids + self._encoder.encode(request.answer_prefix) if request.answer_prefix else ids


def merge_system_turn(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Move system texts in front of the first user turn, with a blank line between."""
    system = "".join(f"{turn.content}\n\n" for turn in turns if turn.role == "system")
    others = [turn for turn in turns if turn.role != "system"]
    first_user = next((index for index, turn in enumerate(others) if turn.role == "user"), None)
    if system and first_user is not None:
        others[first_user] = replace(others[first_user], content=system + others[first_user].content)
    return tuple(others)


def has_system_role(encoder: PolicyTokenizer) -> bool:
    """Whether the chat template supports system turns: some refuse them, some drop them, some render an answer."""
    system, user = PROBE_EXAMPLE

    def render(role: str) -> str:
        turns = [{"role": role, "content": system}, {"role": "user", "content": user}]
        return encoder.conversation_text(turns)

    try:
        rendered = render("system")
    except PolicyError:
        return False
    if system not in rendered:
        return False
    try:
        return rendered != render("assistant")
    except PolicyError:  # the template requires a user turn or a system turn first
        return True
