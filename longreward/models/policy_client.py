"""Client of a policy server that speaks the OpenAI protocol: one prompt in, n choices out.

{"prompt": [1, 733, …]}            --POST /completions {"n": 10}--> 10 choices
{"messages": [{"role": "user", …}]}  --POST /chat/completions-->    1 choice, and 9 more requests if `n` is ignored
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from longreward.errors import JudgeUnavailable, PolicyError, PromptTooLong, ServerRefused, ServerUnavailable
from longreward.models.server_config import ServerConfig, server_key
from longreward.utils.concurrency import gather
from longreward.utils.http_errors import ErrorMapper

CONNECT_TIMEOUT_S = 10.0  # a running server accepts a connection at once, however long a reply takes


@dataclass(frozen=True)
class Prompt:
    """What a request sends."""

    field: Mapping[str, Any]
    """Token ids as `prompt`, for `/completions`, or `messages`, for `/chat/completions`."""
    ids: Sequence[int] | None = None
    """The ids that the server should read; None if they cannot be known or need not be checked."""

    @property
    def is_chat(self) -> bool:
        """Whether the server renders the prompt."""
        return "messages" in self.field


@dataclass(frozen=True)
class Choice:
    """One response; finish reason `length`: it was stopped by the token limit."""

    text: str
    finish_reason: Literal["stop", "length"] | None
    token_ids: tuple[int, ...] | None = None
    """The generated ids, if requested and returned (vLLM from 0.10.2, SGLang)."""
    same_prompt: bool = False
    """Whether the server confirms that it read exactly `Prompt.ids`."""


class PolicyClient:
    """Client of one model at one address with at most `config.max_concurrency` concurrent requests.

    Raises ServerUnavailable if a later attempt may succeed, otherwise ServerRefused. `local` marks a server of this
    machine that the stage started: no key is sent and no proxy is used.
    """

    def __init__(self, config: ServerConfig, *, base_url: str, model: str | None, local: bool = False) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        key = None if local else server_key(config)
        connect_s = min(config.timeout_s, CONNECT_TIMEOUT_S)
        timeout = Timeout(config.timeout_s, connect=connect_s)
        self.model = model
        self.window: int | None = None
        """Maximum number of prompt and completion tokens together, if the server reports it."""
        self.chat = config.prompt == "chat"
        """Whether prompts are sent as messages, which the server renders."""
        self._extra_body = config.extra_body
        self._check_ids = config.check_prompt
        # Learned from replies: the prompt token count has been checked, the server rejects `return_token_ids`, and the
        # number of choices that it returns per request.
        self._check_count = config.check_prompt
        self._returns_token_ids = True
        self._choices_per_request = config.choices_per_request
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key=key or "none",  # the library requires one; servers without keys ignore it
            timeout=timeout,
            max_retries=config.max_retries,
            http_client=DefaultAsyncHttpxClient(timeout=timeout, trust_env=False) if local else None,
        )
        self.location = f"policy server at {self._client.base_url}"
        self._errors = ErrorMapper(
            server=self.location,
            section="server",
            key=key,
            key_env=config.api_key_env or "the variable that server.api_key_env names",
            timeout_s=config.timeout_s,
            connect_s=connect_s,
            protocol="OpenAI completions",
            request_kind="prompt",
        )

    async def complete(
        self, prompt: Prompt, *, n: int, seed_for: Callable[[int], int], token_ids: bool = False, **settings: float
    ) -> list[Choice]:
        """Return `n` choices; request number k for this prompt is sampled with `seed_for(k)`.

        Args:
            token_ids: Request token ids, which not every server returns.
            settings: Further fields of the request: temperature, top_p, max_tokens.
        """
        if token_ids:
            settings["return_token_ids"] = True
        if settings.get("temperature") == 0:  # all choices are equal, and vLLM rejects n > 1
            return await self._request(prompt, 1, {**settings, "seed": seed_for(0)}) * n
        choices: list[Choice] = []
        request_number = itertools.count()
        while len(choices) < n:
            size = self._choices_per_request or n
            sizes = [min(size, n - start) for start in range(len(choices), n, size)]
            requests = [self._request(prompt, k, {**settings, "seed": seed_for(next(request_number))}) for k in sizes]
            choices += [choice for reply in await gather(requests) for choice in reply]
        return choices

    async def list_models(self) -> list[dict[str, Any]]:
        """Return the models that the server lists; empty if it has no list (`transformers serve` without a cache)."""
        from openai import APIConnectionError, APIStatusError

        try:
            raw = await self._client.with_options(max_retries=0).models.with_raw_response.list()
            models = json.loads(raw.http_response.text)["data"]
            return [model for model in models if isinstance(model, dict) and model.get("id")]
        except (APIStatusError, ValueError, LookupError, TypeError):
            return []
        except APIConnectionError as error:
            unavailable = ServerUnavailable(str(self._errors.from_exception(error)))
        raise unavailable  # outside the except block, as in _send

    async def request_token(self) -> None:
        """Request one token for a minimal prompt; raises ServerUnavailable or ServerRefused if that fails."""
        field = {"messages": [{"role": "user", "content": "Hello"}]} if self.chat else {"prompt": [1]}
        await self._request(Prompt(field), 1, {"temperature": 0, "max_tokens": 1})

    async def accepts_model(self, name: str) -> bool:
        """Return whether the server returns a token for the model called `name`."""
        configured, self.model = self.model, name
        try:
            await self.request_token()
        except PolicyError:
            return False
        finally:
            self.model = configured
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _request(self, prompt: Prompt, n: int, settings: dict[str, float]) -> list[Choice]:
        """Return at most `n` choices of one request; one choice if the server rejects more."""
        try:
            return await self._request_ids(prompt, n, settings)
        except _RequestRejected as error:
            if n == 1:
                raise
            rejected = error
        try:
            # llama.cpp gives at most as many choices as it has slots, other servers only one.
            choices = await self._request_ids(prompt, 1, settings)
        except _RequestRejected:
            raise rejected from None
        self._choices_per_request = 1
        return choices

    async def _request_ids(self, prompt: Prompt, n: int, settings: dict[str, float]) -> list[Choice]:
        """Return at most `n` choices of one request; without token ids if the server rejects that field."""
        if self._returns_token_ids or "return_token_ids" not in settings:
            try:
                return await self._send(prompt, n, settings)
            except _RequestRejected:  # OpenAI, `transformers serve` and others reject unknown fields
                if "return_token_ids" not in settings:
                    raise
        plain = {name: value for name, value in settings.items() if name != "return_token_ids"}
        choices = await self._send(prompt, n, plain)
        self._returns_token_ids = False
        return choices

    async def _send(self, prompt: Prompt, n: int, settings: dict[str, float]) -> list[Choice]:
        from openai import APIError

        path = "/chat/completions" if prompt.is_chat else "/completions"
        body = {"model": self.model, **prompt.field, **settings, **({"n": n} if n > 1 else {}), **self._extra_body}
        body = {name: value for name, value in body.items() if value is not None}
        try:
            async with self._slots:
                choices = self._parse(await self._client.post(path, body=body, cast_to=str), prompt)
        except APIError as error:
            policy_error = self._convert_error(error, prompt)
        else:
            if len(choices) < n:
                self._choices_per_request = len(choices)
            return choices[:n]
        # Raised outside the except block: as its context, the library's error would keep the request with its headers.
        raise policy_error

    def _convert_error(self, error: Exception, prompt: Prompt) -> PolicyError:
        converted = self._errors.from_exception(error)
        if isinstance(converted, JudgeUnavailable):
            return ServerUnavailable(str(converted))
        if isinstance(converted, PromptTooLong):
            # The window is known where the server's list of models states it, and then no such prompt is sent.
            return ServerRefused(
                f"{converted}; set policy.window to the server's window, so that longer prompts are handled as "
                "sample.over_window says, or start the server with a larger one (vLLM: --max-model-len; llama.cpp: "
                "--ctx-size, divided among its slots)"
            )
        if getattr(error, "status_code", None) not in (400, 422):
            return ServerRefused(str(converted))
        advice = "" if prompt.is_chat else "; a server that takes no token ids needs server.prompt: chat"
        return _RequestRejected(f"{converted}{advice}")

    # --- replies ---

    def _parse(self, body: str, prompt: Prompt) -> list[Choice]:
        try:
            reply = json.loads(body)
            choices = [self._parse_choice(choice, reply, prompt) for choice in reply["choices"]]
            prompt_tokens = (reply.get("usage") or {}).get("prompt_tokens")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ServerRefused(str(self._errors.protocol_error(body))) from None
        if not choices:
            raise ServerRefused(f"the {self.location} returned no choices for a prompt")
        if self._check_count and prompt.ids and prompt_tokens:
            if prompt_tokens != len(prompt.ids):
                raise self._prompt_mismatch(f"counts {prompt_tokens:,} tokens in a prompt that has {len(prompt.ids):,}")
            self._check_count = False  # only the first reply: some servers do not count cached tokens
        return choices

    def _parse_choice(self, choice: Any, reply: Any, prompt: Prompt) -> Choice:
        message = choice.get("message") or {}
        text, finish_reason = message.get("content") if message else choice["text"], choice.get("finish_reason")
        if message.get("reasoning_content") or message.get("reasoning"):
            raise ServerRefused(
                f"the {self.location} separates a response's reasoning from its text, so it would be lost; start it "
                "without a reasoning parser, or set server.prompt to ids"
            )
        if finish_reason not in ("stop", "length", None):
            raise ServerUnavailable(f"the {self.location} aborted a response ({finish_reason})")
        ids = choice.get("token_ids")
        return Choice(
            str(text or ""),
            finish_reason,
            tuple(map(int, ids)) if ids else None,
            same_prompt=self._read_same_prompt(choice, reply, prompt),
        )

    def _read_same_prompt(self, choice: Any, reply: Any, prompt: Prompt) -> bool:
        """Return whether the server reports that it read `prompt.ids`: SGLang in a choice, vLLM in a chat's reply."""
        ids = choice.get("prompt_token_ids") or reply.get("prompt_token_ids")
        if ids is None or prompt.ids is None:
            return False
        same = [*ids] == [*prompt.ids]
        if not same and self._check_ids:
            raise self._prompt_mismatch(
                f"reads a prompt of {len(ids):,} tokens that are not the {len(prompt.ids):,} of the same prompt"
            )
        return same

    def _prompt_mismatch(self, difference: str) -> ServerRefused:
        return ServerRefused(
            f"the {self.location} {difference} in every other stage: it has another tokenizer or chat template, or "
            "adds tokens; start it with the policy's own, or set server.prompt to ids (server.check_prompt: false "
            "disables this check)"
        )


class _RequestRejected(ServerRefused):
    """The server rejects a field or the form of the request (400 or 422)."""
