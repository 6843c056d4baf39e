"""An HTTP server that replies with prepared questions and answers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chat_server import chat_server, completion_body


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
        with chat_server(lambda body: (200, completion_body(self.reply(body)))) as server:
            yield {"kind": "http", "base_url": server.url, "model": "test-writer", "max_attempts": 2}
