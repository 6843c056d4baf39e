"""A server on a free port that writes as it is told: questions by kind, answers by question."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Scribe:
    """`questions` by a word of the task's text, `answers` by the question; `asked` has every prompt."""

    def __init__(self, questions: Mapping[str, str], answers: Mapping[str, str]) -> None:
        self.questions, self.answers = questions, answers
        self.asked: list[dict[str, Any]] = []

    def reply(self, body: dict[str, Any]) -> str:
        self.asked.append(body)
        prompt = body["messages"][-1]["content"]
        if "<question>" in prompt:
            return next((text for word, text in self.questions.items() if word in prompt), "<no_question/>")
        query = prompt.split("[Question]\n")[-1].split("[问题]\n")[-1].split("\n\n")[0]
        return self.answers.get(query, "<unanswerable/>")

    @contextmanager
    def serving(self) -> Iterator[dict[str, Any]]:
        """Gives the settings of a writer that asks it."""
        scribe = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                message = {"role": "assistant", "content": scribe.reply(body)}
                answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "scribe"}
                data = json.dumps(answer).encode()
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
            yield {"kind": "http", "base_url": url, "model": "scribe", "max_attempts": 2}
        finally:
            server.shutdown()
            server.server_close()
