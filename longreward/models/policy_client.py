"""One prompt in, n answers out, from a server of the OpenAI protocol.

[1, 733, …] --POST /completions {"n": 10}--> 10 choices        (a prompt as ids)
"The town …" --POST /chat/completions--> 1 choice, and 9 requests more where the server ignores `n`
Turns([…])   --POST /chat/completions--> the same, behind the turns of a conversation
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from longreward.errors import JudgeUnavailable, PolicyError, ServerRefused, ServerUnavailable
from longreward.models.server_config import ServerConfig, server_key
from longreward.utils.concurrency import gather
from longreward.utils.http_errors import ErrorMapper


@dataclass(frozen=True)
class Conversation:
    """A conversation, `{"role": …, "content": …}` each, that the server continues."""

    messages: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Prompt:
    """What is sent: token ids to `/completions`, or the user's message or several turns to `/chat/completions`."""

    sent: Sequence[int] | str | Conversation
    ids: Sequence[int] | None = None  # what the server should read; None where that cannot be told

    @property
    def path(self) -> str:
        """Where it is sent to, behind the base URL."""
        return "/chat/completions" if isinstance(self.sent, str | Conversation) else "/completions"

    @property
    def fields(self) -> dict[str, Any]:
        """The request's field that holds it."""
        if isinstance(self.sent, str):
            return {"messages": [{"role": "user", "content": self.sent}]}
        if isinstance(self.sent, Conversation):
            return {"messages": [{**message} for message in self.sent.messages]}
        return {"prompt": [*self.sent]}


@dataclass(frozen=True)
class Choice:
    """One answer; `length`: it was stopped by the token limit."""

    text: str
    finish_reason: Literal["stop", "length"] | None
    token_ids: tuple[int, ...] | None = None
    """What was generated, where it was asked for and the server says it: vLLM from 0.10.2 on, SGLang."""
    same_prompt: bool = False
    """Whether the server has said that it read exactly `Prompt.ids`."""


class PolicyClient:
    """Asks one model at one address, at most `config.max_concurrency` requests at once.

    Raises ServerUnavailable where asking later may help, else ServerRefused. `own` is a server of this machine that
    the stage started: no key, and no proxy in between.
    """

    def __init__(self, config: ServerConfig, *, base_url: str, model: str | None, own: bool = False) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        key = None if own else server_key(config)
        connect_s = min(config.timeout_s, CONNECT_S)
        timeout = Timeout(config.timeout_s, connect=connect_s)
        self.model = model
        self.window: int | None = None  # most tokens of prompt and completion, where the server says it
        self.chat = config.prompt == "chat"  # prompts are messages, which the server renders
        self._shortest = Prompt("Hello") if self.chat else Prompt([1])
        self._checks = self._check_ids = config.check_prompt
        self._returns_ids = True  # until it refuses to
        self._extra = config.extra_body
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key=key or "none",  # the library insists on one; servers without keys ignore it
            timeout=timeout,
            max_retries=config.max_retries,
            http_client=DefaultAsyncHttpxClient(timeout=timeout, trust_env=False) if own else None,
        )
        self._most = config.choices_per_request  # choices that a request gets, as far as is known
        self._places = asyncio.Semaphore(config.max_concurrency)
        self.faults = ErrorMapper(
            where=f"policy server at {self._client.base_url}",
            section="server",
            key=key,
            key_env=config.api_key_env or "the variable that server.api_key_env names",
            timeout_s=config.timeout_s,
            connect_s=connect_s,
            protocol="completions",
            asked="prompt",
        )

    async def answers(
        self, prompt: Prompt, *, n: int, seed_of: Callable[[int], int], token_ids: bool = False, **settings: float
    ) -> list[Choice]:
        """`n` answers; the request numbered k for this prompt is drawn with `seed_of(k)`.

        With `token_ids` they come with their token ids where the server gives them. `settings` are fields of the
        request: temperature, top_p, max_tokens.
        """
        if token_ids:
            settings["return_token_ids"] = True
        if settings.get("temperature") == 0:  # all alike, and vLLM refuses n > 1
            return await self._ask(prompt, 1, {**settings, "seed": seed_of(0)}) * n
        found: list[Choice] = []
        number = itertools.count()
        while len(found) < n:
            most = self._most or n
            sizes = [min(most, n - start) for start in range(len(found), n, most)]
            asked = [self._ask(prompt, size, {**settings, "seed": seed_of(next(number))}) for size in sizes]
            found += [choice for reply in await gather(asked) for choice in reply]
        return found

    async def listed(self) -> list[dict[str, Any]]:
        """What the server says it serves; nothing where it does not say (`transformers serve` without a cache)."""
        from openai import APIConnectionError, APIStatusError

        try:
            raw = await self._client.with_options(max_retries=0).models.with_raw_response.list()
            models = json.loads(raw.http_response.text)["data"]
            return [model for model in models if isinstance(model, dict) and model.get("id")]
        except (APIStatusError, ValueError, LookupError, TypeError):
            return []
        except APIConnectionError as error:
            fault = ServerUnavailable(str(self.faults.of(error)))
        raise fault  # outside the except, as below

    async def first_token(self) -> None:
        """Raises ServerUnavailable or ServerRefused where the server gives none for the shortest of prompts."""
        await self._ask(self._shortest, 1, {"temperature": 0, "max_tokens": 1})

    async def answers_to(self, name: str) -> bool:
        """Whether the server gives a token where the model is called `name`."""
        called, self.model = self.model, name
        try:
            await self._ask(self._shortest, 1, {"temperature": 0, "max_tokens": 1})
        except PolicyError:
            return False
        finally:
            self.model = called
        return True

    async def close(self) -> None:
        """Gives the connections back."""
        await self._client.close()

    async def _ask(self, prompt: Prompt, n: int, settings: dict[str, float]) -> list[Choice]:
        """One request's choices, at most `n`."""
        if "return_token_ids" not in settings:
            return await self._request(prompt, n, settings)
        without = {name: value for name, value in settings.items() if name != "return_token_ids"}
        if not self._returns_ids:
            return await self._request(prompt, n, without)
        try:
            return await self._request(prompt, n, settings)
        except _FormRefused:  # OpenAI, `transformers serve` and others take no fields that they do not know
            choices = await self._request(prompt, n, without)
        self._returns_ids = False
        return choices

    async def _request(self, prompt: Prompt, n: int, settings: dict[str, float]) -> list[Choice]:
        from openai import APIError

        body = {"model": self.model, **prompt.fields, **settings, **({"n": n} if n > 1 else {}), **self._extra}
        body = {name: value for name, value in body.items() if value is not None}
        fault: PolicyError
        try:
            async with self._places:
                choices = self._read(await self._client.post(prompt.path, body=body, cast_to=str), prompt)
        except APIError as error:
            fault = self._fault(error, prompt)
        else:
            if len(choices) < n:
                self._most = len(choices)
            return choices[:n]
        raise fault  # outside the except: the library's error holds the request with its headers

    def _fault(self, error: Exception, prompt: Prompt) -> PolicyError:
        met = self.faults.of(error)
        if isinstance(met, JudgeUnavailable):
            return ServerUnavailable(str(met))
        if getattr(error, "status_code", None) not in (400, 422):
            return ServerRefused(str(met))
        advice = "; one that takes no token ids needs server.prompt: chat" if "prompt" in prompt.fields else ""
        return _FormRefused(f"{met}{advice}")

    def _read(self, body: str, prompt: Prompt) -> list[Choice]:
        try:
            said = json.loads(body)
            choices = [self._choice(choice, said, prompt) for choice in said["choices"]]
            counted = (said.get("usage") or {}).get("prompt_tokens")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ServerRefused(str(self.faults.no_protocol(body))) from None
        if not choices:
            raise ServerRefused(f"the {self.faults.where} gave no choices for a prompt")
        if self._checks and prompt.ids and counted:
            if counted != len(prompt.ids):
                raise self._another_prompt(f"counts {counted:,} tokens in a prompt that has {len(prompt.ids):,}")
            self._checks = False  # the first answer's is enough; some servers do not count what they have cached
        return choices

    def _another_prompt(self, seen: str) -> ServerRefused:
        return ServerRefused(
            f"the {self.faults.where} {seen} in every other stage: it has another tokenizer or chat template, or adds "
            "something; start it with the policy's own, or set server.prompt to ids (server.check_prompt: false leaves "
            "this check out)"
        )

    def _same_prompt(self, choice: Any, said: Any, prompt: Prompt) -> bool:
        """Whether the server read the ids that it should; SGLang says it with a choice, vLLM with a chat's reply."""
        read = choice.get("prompt_token_ids") or said.get("prompt_token_ids")
        if read is None or prompt.ids is None:
            return False
        same = [*read] == [*prompt.ids]
        if not same and self._check_ids:
            raise self._another_prompt(
                f"reads a prompt of {len(read):,} tokens that are not the {len(prompt.ids):,} of the same prompt"
            )
        return same

    def _choice(self, choice: Any, said: Any, prompt: Prompt) -> Choice:
        message = choice.get("message") or {}
        text, reason = message.get("content") if message else choice["text"], choice.get("finish_reason")
        if message.get("reasoning_content") or message.get("reasoning"):
            raise ServerRefused(
                f"the {self.faults.where} takes an answer's reasoning out of its text, so that it would be lost; start "
                "it without a reasoning parser, or set server.prompt to ids"
            )
        if reason not in ("stop", "length", None):
            raise ServerUnavailable(f"the {self.faults.where} broke off an answer ({reason})")
        ids = choice.get("token_ids")
        return Choice(
            str(text or ""),
            reason,
            tuple(map(int, ids)) if ids else None,
            same_prompt=self._same_prompt(choice, said, prompt),
        )


class _FormRefused(ServerRefused):
    """The request has a field or a form that the server does not take."""


CONNECT_S = 10.0  # a server that is there takes a connection at once, however long it thinks about an answer
