"""Sampling n responses to each prompt from a server, as the same records as `longreward.models.sampling` gives.

    Example --prompt ids, or the user's message--> n choices --> n Responses, in the order of the examples

Which server answers, in which batches, with which kernels, changes the draws, and a seed is best effort at a server:
the same settings give other samples than in this process, from the same distribution. The seed of a request comes from
the stage's seed, the example's id and the request's number among those for that example.
"""

import hashlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from longreward.errors import PolicyError, ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.policy import PolicyTokenizer, hash_ids, load_tokenizer, policy_window
from longreward.models.policy_client import Choice, PolicyClient, Prompt
from longreward.models.sampling import SampleConfig, encode_prompt, response_from_ids
from longreward.records import Example, Response
from longreward.utils.concurrency import gather, with_progress

T = TypeVar("T")


class ServerHandle(Protocol):
    """Who started the server, where the stage did."""

    async def ready(self) -> None:
        """Starts the server again where it has ended; ServerUnavailable where it does not start."""
        ...

    def last_words(self) -> str:
        """What a server that has ended printed last, as the end of a message; nothing where it runs."""
        ...


@dataclass(frozen=True)
class ServedPolicy:
    """A tokenizer of this process with a model at a server; `window` counts prompt and completion together."""

    text: PolicyTokenizer
    window: int
    client: PolicyClient
    keeper: ServerHandle | None = None

    def prompt_ids(self, context: str, query: str) -> list[int]:
        """The ids that the model continues."""
        return self.text.prompt_ids(context, query)


def served_policy(
    config: PolicyConfig, path: str | Path, client: PolicyClient, keeper: ServerHandle | None = None
) -> ServedPolicy:
    """The model of folder or hub id `path` at `client`'s server; reads its tokenizer and config, and no weights."""
    limits = [limit for limit in (policy_window(config, path), client.window) if limit]
    if not limits:
        raise PolicyError(f"{path}: neither its config nor its server says how long a text may be; set policy.window")
    return ServedPolicy(load_tokenizer(config, path), min(limits), client, keeper)


def check_truncated_chats(policy: ServedPolicy, cut: Sequence[str]) -> None:
    """PolicyError where a prompt, `cut` to fit, would have to be sent as a message, which the server renders whole."""
    if cut and policy.client.chat:
        raise PolicyError(
            f"example {cut[0]}: its prompt is cut to fit the window, and a cut prompt cannot be sent as a message; set "
            "server.prompt to ids, or leave such examples out"
        )


async def sample_served(
    policy: ServedPolicy,
    examples: Sequence[Example],
    config: SampleConfig,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[Response]]:
    """The `config.n` responses to each example, in the order of `examples`; `progress` gets the prompts done so far.

    Raises ServerUnavailable where asking later may help, else ServerRefused or PolicyError.
    """
    prompts = [_prompt(policy, example, config) for example in examples]

    async def draw(example: Example, prompt: Prompt) -> list[Response]:
        choices = await policy.client.answers(
            prompt,
            n=config.n,
            seed_of=lambda number: request_seed(config.seed, example.id, number),
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_new_tokens,
            token_ids=True,
        )
        return [_response(policy, example, number, choice, prompt, config) for number, choice in enumerate(choices)]

    return await gather_requests(policy, map(with_progress(draw, progress), examples, prompts))


async def gather_requests(policy: ServedPolicy, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order, of calls to `policy.client` that are made (lazily: a map) once its server is there.

    The first failure ends the others; that of a server that has ended says what it printed last.
    """
    if policy.keeper is not None:
        await policy.keeper.ready()
    try:
        return await gather(calls)
    except PolicyError as error:
        words = policy.keeper.last_words() if policy.keeper is not None else ""
        if not words:
            raise
        raise ServerUnavailable(f"{error}; {words}") from None


def request_seed(seed: int, name: str, number: int) -> int:
    """Of the request `number` for what is called `name`: 31 bits, which every server takes."""
    digest = hashlib.sha256(f"{seed}\0{name}\0{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _prompt(policy: ServedPolicy, example: Example, config: SampleConfig) -> Prompt:
    ids, cut = encode_prompt(policy, example, config)
    if not policy.client.chat:
        return Prompt(ids, ids)
    check_truncated_chats(policy, [example.id] if cut else [])
    message = policy.text.message(example.context, example.query)
    # The server tokenizes the message: special tokens in it are broken, so that they are text there, too.
    sent = policy.text.chat.break_controls(message)
    return Prompt(sent, ids if sent == message else None)


def _response(
    policy: ServedPolicy, example: Example, number: int, choice: Choice, prompt: Prompt, config: SampleConfig
) -> Response:
    # A message is rendered by the server; without its word on the ids, nobody knows which ones it read.
    known = prompt.ids if choice.same_prompt or not policy.client.chat else None
    of_prompt = (len(known), hash_ids(known)) if known else (None, None)
    if (ids := _trusted_ids(policy.text, choice)) is not None:
        return response_from_ids(
            policy.text, example, number, ids, prompt_tokens=of_prompt[0], prompt_hash=of_prompt[1]
        )
    full = choice.finish_reason == "length"
    return Response(
        id=f"{example.id}-{number}",
        example_id=example.id,
        query=example.query,
        text=choice.text,
        # Servers count all answers of a request together, some with the end token.
        tokens=config.max_new_tokens if full else policy.text.count_tokens(choice.text),
        finish_reason=choice.finish_reason,
        prompt_tokens=of_prompt[0],
        prompt_hash=of_prompt[1],
    )


def _trusted_ids(text: PolicyTokenizer, choice: Choice) -> tuple[int, ...] | None:
    """The sampled ids with the end token, where the server gives them and they are its text's.

    They are not where it stopped for a reason of its own (a stop string in `server.extra_body`), keeps the end token
    to itself, or has another tokenizer.
    """
    ids = choice.token_ids
    if not ids:
        return None
    ended = ids[-1] in text.end_ids
    if not ended and choice.finish_reason != "length":
        return None
    return ids if _letters(text.decode(ids)) == _letters(choice.text) else None


def _letters(text: str) -> str:
    """The text without what servers handle differently: white space at the ends, half characters at the limit."""
    return "".join(text.replace("\ufffd", "").split())
