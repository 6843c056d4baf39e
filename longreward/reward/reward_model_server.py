"""A reward model at a server with vLLM's pooling API, which reads token ids.

    vllm serve models/reward --runner pooling

    POST /classify {"input": [[1, 733, …], …], "use_activation": false} -> {"data": [{"index": 0, "probs": [-1.25]}, …]}
    POST /pooling  the same and "task": "classify"                      -> {"data": [{"index": 0, "data": [-1.25]}, …]}

vLLM's `/score` is not supported: it compares two texts, without a chat template.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from longreward.errors import JudgeError, JudgeUnavailable, PolicyError, ServerRefused, ServerUnavailable
from longreward.utils.endpoints import read_key
from longreward.utils.http_errors import CONNECT_TIMEOUT_S, ErrorMapper

ENDPOINTS = ("classify", "pooling")
MAX_RETRIES = 5  # of a failed request (no connection, a timeout, 408, 409, 429, 5xx), with backoff


class RewardModelServer:
    """Client of a served reward model; `url` is that of the endpoint, or of the server, which means `/classify`.

    `window` is the most tokens that the server accepts, None if it does not say; `section` is that of the settings.
    Raises ServerUnavailable if a later attempt may succeed, otherwise ServerRefused.
    """

    def __init__(self, url: str, *, section: str, key_env: str | None, timeout_s: float, max_concurrency: int) -> None:
        from openai import OpenAI, Timeout

        base, _, endpoint = url.rstrip("/").rpartition("/")
        if endpoint not in ENDPOINTS:
            base, endpoint = url.rstrip("/").removesuffix("/v1"), ENDPOINTS[0]
        key = read_key(key_env, base_url=None, owner="the reward model's server", section=section) if key_env else None
        connect_s = min(timeout_s, CONNECT_TIMEOUT_S)
        self._client = OpenAI(
            base_url=base,
            api_key=key or "none",  # the library requires one; servers without keys ignore it
            timeout=Timeout(timeout_s, connect=connect_s),
            max_retries=MAX_RETRIES,
        )
        self._errors = ErrorMapper(
            server=f"reward model at {base}/{endpoint}",
            section=section,
            key=key,
            key_env=key_env or f"the variable that {section}.api_key_env names",
            timeout_s=timeout_s,
            connect_s=connect_s,
            protocol="vLLM pooling",
            request_kind="input",
        )
        self._path = f"/{endpoint}"
        self._threads = max_concurrency
        served = self._served_model("/models" if base.endswith("/v1") else "/v1/models")
        self.window: int | None = served.get("max_model_len")
        self._fields: dict[str, Any] = {"use_activation": False}  # the number itself, not its sigmoid
        if endpoint == "pooling":
            self._fields["task"] = "classify"
        if name := served.get("id"):
            self._fields["model"] = name

    def rewards(self, batches: Sequence[Sequence[list[int]]]) -> Iterator[list[float]]:
        """Yield the rewards of each batch of token ids, in order; several batches are requested at once."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="rewards") as threads:
            yield from threads.map(self._request, batches)

    def _served_model(self, path: str) -> dict[str, Any]:
        """Return the server's first model; empty if it has no list."""
        try:
            return dict(json.loads(self._call(lambda: self._client.get(path, cast_to=str)))["data"][0])
        except (ServerRefused, ValueError, LookupError, TypeError):
            return {}

    def _request(self, rows: Sequence[list[int]]) -> list[float]:
        fields = self._fields | {"input": list(rows)}
        body = self._call(lambda: self._client.post(self._path, body=fields, cast_to=str))
        try:
            data = sorted(json.loads(body)["data"], key=lambda row: row["index"])
            outputs = [row["probs"] if "probs" in row else row["data"] for row in data]
            sizes, values = {len(output) for output in outputs}, [float(output[0]) for output in outputs]
        except (ValueError, LookupError, TypeError):
            raise _policy_error(self._errors.protocol_error(body)) from None
        if len(values) != len(rows):
            raise ServerRefused(f"the {self._errors.server} returned {len(values)} rewards for {len(rows)} inputs")
        if sizes != {1}:
            raise ServerRefused(
                f"the {self._errors.server} has {max(sizes)} outputs, but a reward is a single number; serve a "
                "sequence-classification model with one output"
            )
        return values

    def _call(self, send: Callable[[], str]) -> str:
        from openai import APIError

        try:
            return send()
        except APIError as api_error:
            error = _policy_error(self._errors.from_exception(api_error))
        raise error  # outside of the except block: the library's error holds the request with the API key


def _policy_error(error: JudgeError) -> PolicyError:
    return (ServerUnavailable if isinstance(error, JudgeUnavailable) else ServerRefused)(str(error))
