"""Sampling of n responses to each prompt at a server, as the same records that sampling.py returns.

    Example --prompt ids, or user message--> n choices --> n Responses, in the order of the examples

The server, its batches and its kernels change the samples, and a seed is best effort at a server: the same settings
give other samples than in this process, from the same distribution. The seed of a request is derived from the stage's
seed, the example's id and the number of the request among those for that example.
"""

import hashlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from longreward.errors import PolicyError, ServerUnavailable
from longreward.models.balanced_client import BalancedClient
from longreward.models.chat_encoding import Messages
from longreward.models.config import PolicyConfig
from longreward.models.policy import MODEL_WINDOW_ADVICE, PolicyTokenizer, hash_ids, load_tokenizer, policy_window
from longreward.models.policy_client import Choice, PolicyClient, Prompt
from longreward.models.sampling import SampleConfig, encode_prompt, response_from_ids
from longreward.records import Example, Response
from longreward.utils.concurrency import gather, with_progress

T = TypeVar("T")


class ServerHandle(Protocol):
    """A server that the stage started."""

    async def ready(self) -> None:
        """Restart the server if it has exited; raises ServerUnavailable if it does not start."""
        ...

    def log_tail(self) -> str:
        """Return the last output of a server that has exited, for an error message; empty while it runs."""
        ...


@dataclass(frozen=True)
class ServedPolicy:
    """A tokenizer of this process with a model at a server; `window` counts prompt and completion tokens together."""

    encoder: PolicyTokenizer
    window: int
    client: PolicyClient | BalancedClient
    server: ServerHandle | None = None

    @property
    def window_advice(self) -> str:
        """How to get a larger window, for messages."""
        if self.client.window != self.window:
            return MODEL_WINDOW_ADVICE
        return (
            f"start the server with a larger window than {self.window:,} tokens (vLLM: --max-model-len; llama.cpp: "
            "--ctx-size, divided among its slots)"
        )


def served_policy(
    config: PolicyConfig,
    path: str | Path,
    client: PolicyClient | BalancedClient,
    server: ServerHandle | None = None,
) -> ServedPolicy:
    """Return the model of a folder or hub id at `client`'s server; reads its tokenizer and config, but no weights."""
    # A server may be started with a smaller window than the model supports.
    windows = [window for window in (policy_window(config, path), client.window) if window]
    if not windows:
        raise PolicyError(f"{path}: neither its config nor its server states a maximum length; set policy.window")
    return ServedPolicy(load_tokenizer(config, path), min(windows), client, server)


def check_truncated_chats(policy: ServedPolicy, truncated: Sequence[str]) -> None:
    """Raise PolicyError if prompts are truncated and sent as messages, which the server renders as a whole."""
    if truncated and policy.client.chat:
        raise PolicyError(
            f"example {truncated[0]}: its prompt is truncated to fit the window, and a truncated prompt cannot be sent "
            "as a message; set server.prompt to ids, or remove such examples"
        )


async def sample_served(
    policy: ServedPolicy,
    examples: Sequence[Example],
    config: SampleConfig,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[Response]]:
    """Return the `config.n` responses to each example, in the order of `examples`.

    `progress` receives the number of finished prompts. Raises ServerUnavailable if a later attempt may succeed,
    otherwise ServerRefused or PolicyError.
    """
    prompts = []
    for example in examples:
        ids, truncated = encode_prompt(policy, example, config)
        check_truncated_chats(policy, [example.id] if truncated else [])
        message = policy.encoder.message(example.context, example.query)
        prompts.append(make_prompt(policy, [{"role": "user", "content": message}], ids))

    async def sample_prompt(example: Example, prompt: Prompt) -> list[Response]:
        choices = await policy.client.complete(
            prompt,
            n=config.n,
            seed_for=lambda number: request_seed(config.seed, example.id, number),
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_new_tokens,
            token_ids=True,
        )
        return [_to_response(policy, example, number, choice, prompt, config) for number, choice in enumerate(choices)]

    return await gather_requests(policy, map(with_progress(sample_prompt, progress), examples, prompts))


async def gather_requests(policy: ServedPolicy, requests: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of requests to `policy.client` in order, starting the server first if necessary.

    `requests` is consumed lazily. The first failure cancels the rest; if the server has exited, the error contains its
    last output.
    """
    if policy.server is not None:
        await policy.server.ready()
    try:
        return await gather(requests)
    except PolicyError as error:
        log_tail = policy.server.log_tail() if policy.server is not None else ""
        if not log_tail:
            raise
        raise ServerUnavailable(f"{error}; {log_tail}") from None


def make_prompt(policy: ServedPolicy, messages: Messages, ids: Sequence[int]) -> Prompt:
    """Return the prompt to send: `ids`, or with `server.prompt: chat` the messages that they encode."""
    if not policy.client.chat:
        return Prompt({"prompt": ids}, ids)
    # The server tokenizes the messages, so special tokens in them are broken to remain text.
    broken = [{**m, "content": policy.encoder.chat.break_controls(m["content"], m["role"])} for m in messages]
    return Prompt({"messages": broken}, ids if broken == [*messages] else None)


def request_seed(seed: int, name: str, number: int) -> int:
    """Return the seed of request `number` for the example `name`: 31 bits, which every server accepts."""
    digest = hashlib.sha256(f"{seed}\0{name}\0{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _to_response(
    policy: ServedPolicy, example: Example, number: int, choice: Choice, prompt: Prompt, config: SampleConfig
) -> Response:
    # The server renders a message itself; unless it confirms the ids, they are unknown.
    prompt_ids = prompt.ids if choice.same_prompt or not policy.client.chat else None
    if (ids := _verified_ids(policy.encoder, choice)) is not None:
        return response_from_ids(policy.encoder, example, number, ids, prompt_ids=prompt_ids)
    truncated = choice.finish_reason == "length"
    return Response(
        id=f"{example.id}-{number}",
        example_id=example.id,
        query=example.query,
        text=choice.text,
        # Not from the server's usage, which covers all choices of a request together, some with the end token.
        tokens=config.max_new_tokens if truncated else policy.encoder.count_tokens(choice.text),
        finish_reason=choice.finish_reason,
        prompt_tokens=len(prompt_ids) if prompt_ids else None,
        prompt_hash=hash_ids(prompt_ids) if prompt_ids else None,
    )


def _verified_ids(encoder: PolicyTokenizer, choice: Choice) -> tuple[int, ...] | None:
    """Return the sampled ids if they end properly and decode to the text of the choice, otherwise None.

    They do not if the server stopped for another reason (a stop string in `server.extra_body`), omits the end token,
    or has another tokenizer.
    """
    ids = choice.token_ids
    if not ids:
        return None
    ended = ids[-1] in encoder.end_ids
    if not ended and choice.finish_reason != "length":
        return None
    return ids if _comparable(encoder.decode(ids)) == _comparable(choice.text) else None


def _comparable(text: str) -> str:
    # Servers differ in white space at the ends and in incomplete characters at the token limit.
    return "".join(text.replace("\ufffd", "").split())
