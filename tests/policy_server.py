"""A policy server on a free loopback port that records requests and replies with their seeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from http_server import JsonHandler, http_server


class PolicyServer:
    """Choice 2 of a request with seed 7 is `seed 7 answer 2`; arguments imitate real servers."""

    def __init__(
        self,
        *,
        names: tuple[str, ...] = ("sft",),
        accepts_any_name: bool = False,
        ignores_n: bool = False,
        accepts_token_ids: bool = True,
        rejected_field: str | None = None,
        prompt_token_ids: list[int] | None = None,
        prompt_tokens: int | None = None,
        dies_after: int | None = None,
        fields: dict[str, Any] | None = None,
        key: str | None = None,
        raw: bytes | None = None,
        listed: dict[str, Any] | None = None,
        max_choices: int | None = None,
        error: tuple[int, dict[str, Any]] | None = None,
    ) -> None:
        self.names, self.accepts_any_name, self.accepts_token_ids = names, accepts_any_name, accepts_token_ids
        self.ignores_n, self.rejected_field, self.fields = ignores_n, rejected_field, fields or {}
        self.prompt_tokens, self.prompt_token_ids = prompt_tokens, prompt_token_ids
        self.dies_after, self.key, self.raw = dies_after, key, raw
        self.max_choices, self.error = max_choices, error
        self.listed = {"max_model_len": 200} if listed is None else listed
        self.requests: list[dict[str, Any]] = []

    @contextmanager
    def serving(self) -> Iterator["PolicyServer"]:
        """Serve until the context ends; `url` is the base address meanwhile."""
        with http_server(self._handler()) as address:
            self.url = f"{address}/v1"
            yield self

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The requests except the first one, which asks for a single token."""
        return [body for body in self.requests if body["max_tokens"] > 1]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["model"] not in self.names and not self.accepts_any_name:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if self.rejected_field in body:
            return 422, {"detail": f"Unexpected keys in the request: {self.rejected_field}"}
        if self.error is not None and body["max_tokens"] > 1:
            return self.error[0], {"error": self.error[1]}
        chat = path.endswith("/chat/completions")
        if self.max_choices is not None and body.get("n", 1) > self.max_choices:
            return 400, {"error": {"message": f"Field 'n': Value must be between 1 <= value <= {self.max_choices}"}}
        if not chat and not self.accepts_token_ids:
            return 400, {"detail": "prompt must be a string."}
        texts = [f"seed {body.get('seed')} answer {i}" for i in range(1 if self.ignores_n else body.get("n", 1))]
        choices = [
            {"index": i, "finish_reason": "stop", **({"message": {"content": text}} if chat else {"text": text})}
            | self.fields
            for i, text in enumerate(texts)
        ]
        tokens = self.prompt_tokens or (0 if chat else len(body["prompt"]))
        usage = {"prompt_tokens": tokens, "completion_tokens": 9 * len(texts)}
        read = {"prompt_token_ids": self.prompt_token_ids} if self.prompt_token_ids else {}
        return 200, {"choices": choices, "usage": usage, **read}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                listed = [{"id": name, **server.listed} for name in server.names]
                self.send({"object": "list", "data": listed})

            def do_POST(self) -> None:
                body = self.read_json()
                server.requests.append(body)
                if server.dies_after is not None and len(server.prompts) > server.dies_after:
                    self.close_connection = True  # like a killed server: no further byte
                elif server.key and self.headers["authorization"] != f"Bearer {server.key}":
                    self.send({"error": {"message": "wrong key"}}, 401)
                elif server.raw is not None:
                    self.send(server.raw)
                else:
                    status, reply = server.answer(self.path, body)
                    self.send(reply, status)

        return Handler
