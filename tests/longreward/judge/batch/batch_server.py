"""An HTTP server with chat, files and batches, answered by the offline judge, that can inject faults."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from http_server import JsonHandler, http_server

from longreward.judge.prompts import load_prompts
from longreward.offline_judge_server import reply_text

Line = dict[str, Any]
EditResult = Callable[[int, Line], Line | str | None]
"""Maps the number of the batch (from 0) and a result to another result (text is sent as it is) or None (omitted)."""


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """Return the offline judge's reply to a chat request."""
    prompt = body["messages"][-1]["content"]
    text = reply_text(PROMPTS, prompt)
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"model": body["model"], "choices": [choice], "usage": usage}


def output_line(request: Line) -> Line:
    """Return the result of one line of a request file."""
    reply = {"status_code": 200, "request_id": "r", "body": completion(request["body"])}
    return {"id": "b", "custom_id": request["custom_id"], "response": reply, "error": None}


@dataclass
class Provider:
    """The state of the server.

    `polls_until_done`: how often a batch is reported in progress; `final_statuses`: of the batches, in order.
    """

    url: str = ""
    polls_until_done: int = 1
    final_statuses: list[str] = field(default_factory=list)
    edit_result: EditResult = lambda number, line: line
    live: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    submitted: list[list[Line]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lose_confirmation: bool = False  # create batches, but close the connection before the response

    def requests(self) -> list[Line]:
        """Return all requests of all batches."""
        return [line for batch in self.submitted for line in batch]

    def create_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.submitted)
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        self.submitted.append(lines)
        end = self.final_statuses[number] if number < len(self.final_statuses) else "completed"
        batch = {
            "id": f"batch_{number}", "object": "batch", "status": "validating", "created_at": int(time.time()),
            "endpoint": body["endpoint"], "input_file_id": body["input_file_id"], "metadata": body.get("metadata"),
            "completion_window": body["completion_window"], "output_file_id": None, "error_file_id": None,
            "_polls": self.polls_until_done, "_final": end, "_number": number,
        }  # fmt: skip
        self.batches[batch["id"]] = batch
        return batch

    def poll_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if batch["_polls"] > 0:
            batch["_polls"] -= 1
            batch["status"] = "in_progress"
        elif batch["status"] != batch["_final"]:
            self.finish_batch(batch)
        return {name: value for name, value in batch.items() if not name.startswith("_")}

    def finish_batch(self, batch: dict[str, Any]) -> None:
        number, batch["status"] = batch["_number"], batch["_final"]
        if batch["_final"] == "failed":
            code, message = batch.get("_code", "invalid_request"), "injected by the test"
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": None}]}
            return
        lines = self.submitted[number]
        if batch["_final"] == "expired":
            lines, late = lines[::2], lines[1::2]
        else:
            late = []
        results = [result for line in lines if (result := self.edit_result(number, output_line(line))) is not None]
        successes = [
            row for row in results if isinstance(row, str) or (row["response"] or {}).get("status_code") == 200
        ]
        failures = [row for row in results if row not in successes]
        expired = {"code": "batch_expired", "message": "This request could not be executed in time."}
        failures += [{"id": "b", "custom_id": row["custom_id"], "response": None, "error": expired} for row in late]
        random.Random(number).shuffle(successes)
        for name, rows in (("output", successes), ("error", failures)):
            if rows:
                file = f"file_{name}_{number}"
                lines_out = [row if isinstance(row, str) else json.dumps(row) for row in rows]
                self.files[file] = "\n".join(lines_out).encode()
                batch[f"{name}_file_id"] = file


PROMPTS = load_prompts()


@contextmanager
def provider(**settings: Any) -> Iterator[Provider]:
    """Run a provider."""
    state = Provider(**settings)

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.paths.append(f"POST {self.path}")
            if self.path == "/v1/files":
                name = f"file_{len(state.files)}"
                state.files[name] = _uploaded(body, self.headers["content-type"])
                self.send({"id": name, "object": "file", "bytes": len(body), "created_at": 0, "filename": "f",
                           "purpose": "batch", "status": "processed"})  # fmt: skip
            elif self.path == "/v1/batches":
                batch = state.create_batch(json.loads(body))
                if state.lose_confirmation:
                    self.close_connection = True
                    return
                self.send({name: value for name, value in batch.items() if not name.startswith("_")})
            elif self.path == "/v1/chat/completions":
                state.live.append(json.loads(body))
                self.send(completion(state.live[-1]))
            else:
                self.send({"error": {"message": "not found"}}, 404)

        def do_GET(self) -> None:
            state.paths.append(f"GET {self.path}")
            parts = self.path.partition("?")[0].split("/")[2:]
            if parts[0] == "files" and parts[1] in state.files:
                self.send(state.files[parts[1]])
            elif parts == ["batches"]:
                shown = [dict(row) for row in state.batches.values()]
                self.send({"object": "list", "data": shown, "has_more": False})
            elif parts[0] == "batches" and parts[1] in state.batches:
                self.send(state.poll_batch(state.batches[parts[1]]))
            else:
                self.send({"error": {"message": "not found"}}, 404)

    with http_server(Handler) as address:
        state.url = f"{address}/v1"
        yield state


def _uploaded(body: bytes, content_type: str) -> bytes:
    """Return the uploaded file of a multipart form."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    part = next(row for row in body.split(b"--" + boundary) if b'name="file"' in row)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
