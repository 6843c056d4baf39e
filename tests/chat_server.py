"""A chat server on a loopback port whose replies a test defines."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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

    class RequestHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            log.bodies.append(body)
            log.keys.append(self.headers.get("authorization"))
            log.headers.append({name.lower(): value for name, value in self.headers.items()})
            log.paths.append(self.path)
            self.send(*((200, completion_body(reply)) if isinstance(reply, str) else reply(body)))

        def do_GET(self) -> None:
            page = (pages or {}).get(self.path)
            self.send(404 if page is None else 200, page or {"error": {"message": "nothing here"}})

        def send(self, status: int, reply: Any) -> None:
            text = reply if isinstance(reply, str) else json.dumps(reply)
            data = text.replace("{auth}", self.headers.get("authorization") or "").encode()
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), RequestHandler)
    server.socket.listen(128)  # many connections at once; the default backlog of 5 would refuse some
    log = ChatServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion_body(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """Make a chat completion of 100 prompt and 10 completion tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    return {"model": "m-1", "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
