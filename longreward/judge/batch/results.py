"""A line of a results file, as OpenAI and `vllm run-batch` write them, and a whole file by the questions' ids.

{"custom_id": "4be0…", "response": {"status_code": 200, "body": {"choices": […], …}}, "error": null}     an answer
{"custom_id": "4be0…", "response": {"status_code": 429, "body": {"error": {"message": …}}}, "error": null}
{"custom_id": "4be0…", "response": null, "error": {"code": "batch_expired", "message": …}}               none came
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from longreward.errors import StateError


@dataclass(frozen=True)
class Result:
    """What came back for one question: a reply with its HTTP status, or None and a reason."""

    status: int | None
    body: str  # JSON text; with status None, an object that holds "error"


def parse_line(line: bytes) -> tuple[str, Result] | None:
    """The question's id and what came of it; None for a line that is cut off or none of this format."""
    try:
        row = json.loads(line)
        name = row["custom_id"]
        response, error = row.get("response"), row.get("error")
        if not isinstance(response, dict):
            return str(name), Result(None, json.dumps({"error": error or {"message": "no response and no reason"}}))
        body = response.get("body")
        if body is None and error is not None:  # vLLM: {"error": {"error": {"message": …}}}
            body = error if isinstance(error, dict) and "error" in error else {"error": error}
        return str(name), Result(int(response.get("status_code") or 200), json.dumps(body))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def not_answered(why: str) -> Result:
    """The result of a question that a finished batch does not mention."""
    return Result(None, json.dumps({"error": {"message": why}}))


class ResultFiles:
    """Results by id: where they lie is held in memory, what they say is read when it is asked for.

    The files stay open, so that another process may remove them.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._places: dict[str, tuple[IO[bytes], int]] = {}
        try:
            self._files = [file.open("rb") for file in files]
            for file in self._files:
                self._look_through(file)
        except OSError as error:
            raise StateError(f"{error.filename} cannot be read: {error.strerror or error}") from error

    def get(self, name: str) -> Result | None:
        """The result of one question; None where there is none."""
        place = self._places.get(name)
        if place is None:
            return None
        file, offset = place
        file.seek(offset)
        parsed = parse_line(file.readline())
        return None if parsed is None else parsed[1]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _look_through(self, file: IO[bytes]) -> None:
        offset = 0
        for line in file:
            parsed = parse_line(line)
            if parsed is not None and (parsed[0] not in self._places or _answers(parsed[1])):
                self._places[parsed[0]] = (file, offset)
            offset += len(line)


def _answers(result: Result) -> bool:
    return result.status is not None and result.status < 300
