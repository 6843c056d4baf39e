"""The judge client of batch mode. Attempts, outcomes and ledger keys are the same as in live mode."""

import asyncio
import hashlib
import json
import pkgutil
from pathlib import Path
from typing import Any

from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import (
    ConfigError,
    JudgeProtocolError,
    JudgeRefused,
    JudgeUnavailable,
    PromptTooLong,
    RequestFailed,
)
from longreward.judge.attempts import Attempt, Attempts
from longreward.judge.batch.api import BatchServer
from longreward.judge.batch.runner import BatchRunner, BatchScheduler
from longreward.judge.batch.storage import BatchFolder, BatchResult
from longreward.judge.budget import Account
from longreward.judge.cached_client import CachedJudgeClient
from longreward.judge.config import JudgeConfig
from longreward.judge.context_window import shorten_advice
from longreward.judge.http_client import HttpJudge
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.usage import Usage
from longreward.utils.jsonl import to_line

REQUEST_ID_LENGTH = 40  # providers accept up to 64 characters


class BatchJudge(HttpJudge):
    """An HTTP judge whose requests and replies are lines of files."""

    def open_server(self) -> BatchServer:
        """Return the batch interface of the provider."""
        config = self._config
        return BatchServer(self.client, self.errors, endpoint=config.endpoint, max_retries=config.max_retries)

    def request_line(self, request_id: str, request: ChatRequest, *, temperature: float) -> bytes:
        """Return a line of a request file, with the same body as in live mode."""
        body = self.request_body(request, temperature)
        row = {"custom_id": request_id, "method": "POST", "url": self._config.endpoint, "body": body}
        return to_line(row).encode("utf-8")

    def parse_result(self, result: BatchResult, request: ChatRequest) -> ChatReply:
        """Return the reply in a result; raise the JudgeError family if there is none, as a live call does."""
        if result.is_success:
            return self.parse_body(result.body, request)
        error = self.errors.from_status(result.status or 500, result.body)
        if isinstance(error, PromptTooLong):
            raise PromptTooLong(f"{error}; {shorten_advice(request.template)}")
        if result.status is None and isinstance(error, JudgeUnavailable):
            reason = json.loads(result.body)["error"]
            if isinstance(reason, dict):
                reason = reason.get("message") or reason.get("code")
            raise JudgeUnavailable(self.errors.sanitize(f"no reply came from the {self.server}: {reason}"))
        raise error


class BatchJudgeClient(CachedJudgeClient):
    """A cached judge client whose calls go through batches; limits of concurrency and rate do not apply to them."""

    def __init__(
        self, model: BatchJudge, config: JudgeConfig, ledger: Ledger, scheduler: BatchScheduler, account: Account
    ) -> None:
        super().__init__(model, config, ledger, RateLimiter(max_concurrency=config.max_concurrency), account)
        self._judge = model
        self._scheduler = scheduler
        self._account = account

    async def close(self) -> None:
        await self._scheduler.close()
        await super().close()

    async def _make_attempt(self, attempt: Attempt, attempts: Attempts[Any]) -> tuple[Exchange | None, bool]:
        exchange = await super()._make_attempt(attempt, attempts)
        self._scheduler.mark_done(_request_id(attempt))  # not before: the reply must be in the ledger
        return exchange

    async def _send(self, attempt: Attempt) -> ChatReply:
        async with self._account.call(attempt.request) as charge:
            try:
                reply = await self._reply(attempt)
            except asyncio.CancelledError:
                charge.used = Usage()  # the run that collects the reply is charged for it
                raise
            charge.report_usage(reply.usage, reply.text)
            return reply

    async def _reply(self, attempt: Attempt) -> ChatReply:
        """Return the model's reply; a request without a usable reply goes into up to `max_retries` further rounds."""
        request = attempt.request
        request_id = _request_id(attempt)
        failures = 0
        while True:
            result = await self._scheduler.submit(
                request_id, lambda: self._judge.request_line(request_id, request, temperature=attempt.temperature)
            )
            try:
                return self._judge.parse_result(result, request)
            except (JudgeRefused, PromptTooLong):
                self._scheduler.mark_done(request_id)
                raise
            except (JudgeUnavailable, JudgeProtocolError) as error:
                # Close the request in its batch, so that the next round writes it into a new one.
                self._scheduler.mark_done(request_id)
                failures += 1
                if failures > self._config.max_retries:
                    self.retrying.counts["failed"] += 1
                    raise RequestFailed(f"{error} ({failures} rounds; the next run requests it again)") from None
                self.retrying.counts["retries"] += 1


class BatchClients:
    """Opens batch clients; those of one model on one server share a folder and a scheduler.

    Args:
        ledger: the open ledger.
        path: its file, beside which the batches are stored.
    """

    def __init__(self, ledger: Ledger, path: Path | None) -> None:
        if path is None:
            raise ConfigError(
                "judge.mode batch needs a ledger file, because replies come hours later: set one, or set judge.mode to "
                "live"
            )
        self._ledger = ledger
        self._path = path
        self._schedulers: dict[tuple[str, str], BatchScheduler] = {}

    def open(self, config: JudgeConfig, account: Account) -> BatchJudgeClient:
        """Return a client for these settings; raise ConfigError for a missing key, StateError for disk errors."""
        batch_judge: type[BatchJudge] = pkgutil.resolve_name(config.provider.batch_client)
        judge = batch_judge(config)
        address = str(judge.client.base_url)
        key = (address, judge.name)
        if key not in self._schedulers:
            folder = BatchFolder(self._path, address=address, model=judge.name)
            runner = None
            if config.mode == "batch":
                runner = BatchRunner(folder, judge.open_server(), config.batch)
            megabytes = config.batch.megabytes_per_file or config.provider.batch_megabytes
            max_bytes = int(megabytes * 1_000_000)
            self._schedulers[key] = BatchScheduler(folder, runner, config.batch, max_bytes=max_bytes)
        return BatchJudgeClient(judge, config, self._ledger, self._schedulers[key], account)


def _request_id(attempt: Attempt) -> str:
    """Return the id of an attempt in the files."""
    identity = f"{attempt.key} {attempt.number} {attempt.temperature!r}"
    return hashlib.sha256(identity.encode()).hexdigest()[:REQUEST_ID_LENGTH]
