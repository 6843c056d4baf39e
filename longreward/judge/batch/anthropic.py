"""Anthropic's Message Batches, in the files of `storage.py`.

The API has neither files nor names of batches: a batch is created with its requests in one call, and its results are
lines of another form, which are converted. https://docs.claude.com/en/docs/build-with-claude/batch-processing
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from longreward.errors import JudgeRefused
from longreward.judge.anthropic import AnthropicJudge
from longreward.judge.batch.api import BatchServer, BatchStatus
from longreward.judge.batch.client import BatchJudge
from longreward.judge.batch.storage import BatchRecord
from longreward.utils.http_errors import ErrorMapper
from longreward.utils.jsonl import to_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI

PATH = "/messages/batches"
MAX_CLOCK_DIFFERENCE_S = 60.0
_STATUS_BY_ERROR = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


class AnthropicBatchJudge(AnthropicJudge, BatchJudge):
    """A judge whose requests go through Message Batches; the body of a request is that of a live one."""

    def open_server(self) -> BatchServer:
        return AnthropicBatchServer(
            self.client, self.errors, max_retries=self._config.max_retries, options=self._options
        )


class AnthropicBatchServer(BatchServer):
    """The Message Batches of one model."""

    def __init__(
        self, client: "AsyncOpenAI", errors: ErrorMapper, *, max_retries: int, options: Mapping[str, Any]
    ) -> None:
        super().__init__(client, errors, endpoint=PATH, max_retries=max_retries)
        self._options: Any = options

    async def submit(self, record: BatchRecord) -> None:
        if record.state.submitting and (batch_id := await self._find_unconfirmed(record)):
            record.update(batch_id=batch_id)
            return
        record.update(submitting=True)
        with record.requests.open("rb") as lines:
            rows = [json.loads(line) for line in lines]
        body = {"requests": [{"custom_id": row["custom_id"], "params": row["body"]} for row in rows]}
        # No retries: a repeated request could create, and bill, a second batch.
        client = self._client.with_options(max_retries=0)
        batch = await self._call(lambda: client.post(PATH, cast_to=object, body=body, options=self._options))
        record.update(batch_id=_batch_id(batch))

    async def status(self, record: BatchRecord) -> BatchStatus:
        missing_error = JudgeRefused(
            f"the {self.description} does not know the batch {record.state.batch_id} (created with another key?); "
            f"remove {record.folder} to make its {record.state.requests:,} requests again"
        )
        batch: Any = await self._call(
            lambda: self._client.get(f"{PATH}/{record.state.batch_id}", cast_to=object, options=self._options),
            missing_error=missing_error,
        )
        status, counts = str(batch.get("processing_status")), batch.get("request_counts") or {}
        finished = sum(count for name, count in counts.items() if name != "processing")
        return BatchStatus(status, status == "ended", message=f"{finished} of {sum(counts.values())}")

    async def download(self, record: BatchRecord, status: BatchStatus) -> None:
        text = await self._call(
            lambda: self._client.get(f"{PATH}/{record.state.batch_id}/results", cast_to=str, options=self._options)
        )
        temporary = record.results.with_suffix(".part")
        with temporary.open("w", encoding="utf-8") as results:
            # Not splitlines: the text of a reply may contain other line separators.
            results.writelines(result_line(line) for line in text.split("\n") if line.strip())
        temporary.replace(record.results)
        record.update(final_status=status.status)

    async def _find_unconfirmed(self, record: BatchRecord) -> str | None:
        """Return the id of a batch whose creation was not confirmed: the first one since then of the same size.

        If that is another batch, its results have other ids, and the requests of this one are made again.
        """
        others = {BatchRecord(path.parent).state.batch_id for path in record.folder.parent.glob("*/batch.json")}
        submitted = (record.folder / "batch.json").stat().st_mtime - MAX_CLOCK_DIFFERENCE_S
        listed: Any = await self._call(
            lambda: self._client.get(f"{PATH}?limit=100", cast_to=object, options=self._options)
        )
        for batch in reversed(listed["data"]):  # the newest come first
            created = datetime.fromisoformat(batch["created_at"]).timestamp()
            is_same_size = sum(batch["request_counts"].values()) == record.state.requests
            if created >= submitted and is_same_size and batch["id"] not in others:
                return _batch_id(batch)
        return None


def result_line(line: str) -> str:
    """Convert a result to the form of `storage.py`; a line that is no result stays as it is.

    >>> result_line('{"custom_id": "4be0", "result": {"type": "expired"}}')
    '{"custom_id": "4be0", "response": null, "error": {"code": "batch_expired", "message": "expired in the batch"}}\\n'
    """
    try:
        row = json.loads(line)
        custom_id, result = row["custom_id"], row["result"]
        kind = result["type"]
        if kind == "succeeded":
            response = {"status_code": 200, "body": result["message"]}
        elif kind == "errored":
            error = result["error"]
            status = _STATUS_BY_ERROR.get(error.get("error", error)["type"], 500)
            response = {"status_code": status, "body": error}
        else:
            error = {"code": f"batch_{kind}", "message": f"{kind} in the batch"}
            return to_line({"custom_id": custom_id, "response": None, "error": error})
        return to_line({"custom_id": custom_id, "response": response, "error": None})
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{line}\n"


def _batch_id(batch: Any) -> str:
    return str(batch["id"])
