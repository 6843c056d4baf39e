"""A provider's chat, files and batches on a loopback port, answered by the offline judge, with faults on purpose."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from longreward.judge.prompts import load_prompts
from longreward.offline_judge_server import reply_text

Line = dict[str, Any]
Spoil = Callable[[int, Line], Line | str | None]
"""The number of the batch from 0 on, and the result's line -> what is said instead (text as it is); None: nothing."""


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """What the offline judge says to a chat request."""
    asked = body["messages"][-1]["content"]
    text = reply_text(PROMPTS, asked)
    usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(text) // 4}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"model": body["model"], "choices": [choice], "usage": usage}


def output_line(request: Line) -> Line:
    """The result of one line of a request file."""
    reply = {"status_code": 200, "request_id": "r", "body": completion(request["body"])}
    return {"id": "b", "custom_id": request["custom_id"], "response": reply, "error": None}


@dataclass
class Provider:
    """What it was sent. `looks`: how often a batch is seen in progress; `ends`: statuses of the batches, in order."""

    url: str = ""
    looks: int = 1
    ends: list[str] = field(default_factory=list)
    spoil: Spoil = lambda number, line: line
    live: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: list[list[Line]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    hide_made: bool = False  # batches are made, and the connection is lost before it is said

    def requests(self) -> list[Line]:
        """All lines of all batches."""
        return [line for batch in self.made for line in batch]

    def make(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = len(self.made)
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        self.made.append(lines)
        end = self.ends[number] if number < len(self.ends) else "completed"
        batch = {
            "id": f"batch_{number}", "object": "batch", "status": "validating", "created_at": int(time.time()),
            "endpoint": asked["endpoint"], "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata"),
            "completion_window": asked["completion_window"], "output_file_id": None, "error_file_id": None,
            "_looks": self.looks, "_end": end, "_number": number,
        }  # fmt: skip
        self.batches[batch["id"]] = batch
        return batch

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        if batch["_looks"] > 0:
            batch["_looks"] -= 1
            batch["status"] = "in_progress"
        elif batch["status"] != batch["_end"]:
            self.finish(batch)
        return {name: value for name, value in batch.items() if not name.startswith("_")}

    def finish(self, batch: dict[str, Any]) -> None:
        number, batch["status"] = batch["_number"], batch["_end"]
        if batch["_end"] == "failed":
            code, message = batch.get("_code", "invalid_request"), "wanted by the test"
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": None}]}
            return
        lines = self.made[number]
        if batch["_end"] == "expired":
            lines, late = lines[::2], lines[1::2]
        else:
            late = []
        results = [said for line in lines if (said := self.spoil(number, output_line(line))) is not None]
        good = [each for each in results if isinstance(each, str) or (each["response"] or {}).get("status_code") == 200]
        bad = [each for each in results if each not in good]
        expired = {"code": "batch_expired", "message": "This request could not be executed in time."}
        bad += [{"id": "b", "custom_id": each["custom_id"], "response": None, "error": expired} for each in late]
        random.Random(number).shuffle(good)
        for name, kept in (("output", good), ("error", bad)):
            if kept:
                file = f"file_{name}_{number}"
                said = [each if isinstance(each, str) else json.dumps(each) for each in kept]
                self.files[file] = "\n".join(said).encode()
                batch[f"{name}_file_id"] = file


PROMPTS = load_prompts()


@contextmanager
def provider(**settings: Any) -> Iterator[Provider]:
    """A running one."""
    found = Provider(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.paths.append(f"POST {self.path}")
            if self.path == "/v1/files":
                name = f"file_{len(found.files)}"
                found.files[name] = _uploaded(body, self.headers["content-type"])
                self.send({"id": name, "object": "file", "bytes": len(body), "created_at": 0, "filename": "f",
                           "purpose": "batch", "status": "processed"})  # fmt: skip
            elif self.path == "/v1/batches":
                made = found.make(json.loads(body))
                if found.hide_made:
                    self.close_connection = True
                    return
                self.send({name: value for name, value in made.items() if not name.startswith("_")})
            elif self.path == "/v1/chat/completions":
                found.live.append(json.loads(body))
                self.send(completion(found.live[-1]))
            else:
                self.send({"error": {"message": "there is nothing here"}}, 404)

        def do_GET(self) -> None:
            found.paths.append(f"GET {self.path}")
            parts = self.path.partition("?")[0].split("/")[2:]
            if parts[0] == "files" and parts[1] in found.files:
                self.send(found.files[parts[1]])
            elif parts == ["batches"]:
                shown = [dict(each) for each in found.batches.values()]
                self.send({"object": "list", "data": shown, "has_more": False})
            elif parts[0] == "batches" and parts[1] in found.batches:
                self.send(found.look(found.batches[parts[1]]))
            else:
                self.send({"error": {"message": "there is nothing here"}}, 404)

        def send(self, reply: Any, status: int = 200) -> None:
            said = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _uploaded(body: bytes, content_type: str) -> bytes:
    """The part of a multipart form that is the file."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    part = next(each for each in body.split(b"--" + boundary) if b'name="file"' in each)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
