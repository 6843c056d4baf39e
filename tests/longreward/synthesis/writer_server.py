"""An HTTP server that replies with prepared questions and answers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class WriterServer:
    """Replies by a phrase of the task's text (`questions`) and by question (`answers`); `requests` records bodies."""

    def __init__(self, questions: Mapping[str, str], answers: Mapping[str, str]) -> None:
        self.questions, self.answers = questions, answers
        self.requests: list[dict[str, Any]] = []

    def reply(self, body: dict[str, Any]) -> str:
        self.requests.append(body)
        prompt = body["messages"][0]["content"]
        if "<question>" in prompt:
            return next((text for word, text in self.questions.items() if word in prompt), "<no_question/>")
        query = prompt.split("[Question]\n")[-1].split("[问题]\n")[-1].split("\n\n")[0]
        return self.answers.get(query, "<unanswerable/>")

    @contextmanager
    def serving(self) -> Iterator[dict[str, Any]]:
        """Yield the settings of a writer that uses this server."""
        writer_server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                message = {"role": "assistant", "content": writer_server.reply(body)}
                completion = {
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "model": "test-writer",
                }
                data = json.dumps(completion).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            yield {"kind": "http", "base_url": url, "model": "test-writer", "max_attempts": 2}
        finally:
            server.shutdown()
            server.server_close()
