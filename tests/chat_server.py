"""A chat server on a loopback port whose replies a test defines."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from http_server import JsonHandler, http_server

# Maps the body of a request to (status, reply); the reply is serialized to JSON unless it is a str.
Handler = Callable[[dict[str, Any]], tuple[int, Any]]


class ChatServer:
    """The requests that the server received: bodies, authorization headers, all headers, and paths."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []


@contextmanager
def chat_server(
    reply: Handler | str, *, pages: Mapping[str, Any] | None = None, content_type: str = "application/json"
) -> Iterator[ChatServer]:
    """Serve `reply`: the content of every completion, or a handler. `pages` are the replies to GET, by path.

    "{auth}" in a reply is replaced by the authorization header of the request.
    """

    class RequestHandler(JsonHandler):
        def do_POST(self) -> None:
            body = self.read_json()
            log.bodies.append(body)
            log.keys.append(self.headers.get("authorization"))
            log.headers.append({name.lower(): value for name, value in self.headers.items()})
            log.paths.append(self.path)
            self.respond(*((200, completion_body(reply)) if isinstance(reply, str) else reply(body)))

        def do_GET(self) -> None:
            page = (pages or {}).get(self.path)
            self.respond(404 if page is None else 200, page or {"error": {"message": "nothing here"}})

        def respond(self, status: int, reply: Any) -> None:
            text = reply if isinstance(reply, str) else json.dumps(reply)
            self.send(text.replace("{auth}", self.headers.get("authorization") or ""), status)

    RequestHandler.content_type = content_type
    with http_server(RequestHandler) as address:
        log = ChatServer(f"{address}/v1")
        yield log


def completion_body(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """Make a chat completion of 100 prompt and 10 completion tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    return {"model": "m-1", "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
