"""An asker whose calls are answered in rounds. Attempts, outcomes and the ledger's keys are those of live mode."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import (
    ConfigError,
    JudgeProtocolError,
    JudgeRefused,
    JudgeUnavailable,
    RequestFailed,
    RequestRefused,
)
from longreward.judge.attempts import Attempt, ReplyParser
from longreward.judge.batch.api import BatchServer
from longreward.judge.batch.config import BatchConfig
from longreward.judge.batch.runner import BatchRunner, BatchScheduler
from longreward.judge.batch.storage import BatchFolder, Result
from longreward.judge.budget import Account
from longreward.judge.cached_client import CachedJudgeClient
from longreward.judge.config import JudgeConfig
from longreward.judge.http_client import HttpJudge
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.usage import Usage
from longreward.utils.jsonl import to_line

if TYPE_CHECKING:
    pass


class BatchJudge(HttpJudge):
    """A judge that is asked as over HTTP, save that its requests and replies are lines of files."""

    def line(self, name: str, question: ChatRequest, *, temperature: float) -> bytes:
        """The question as a line of a request file: its body is what live mode would send."""
        body = self.request_body(question, temperature)
        row = {"custom_id": name, "method": "POST", "url": self._config.endpoint, "body": body}
        return to_line(row).encode("utf-8")

    def read(self, result: Result, question: ChatRequest) -> ChatReply:
        """The answer to the question; raises the JudgeError family where there is none, as a live call would."""
        if result.status is not None and result.status < 300:
            return self.parse_body(result.body, question)
        fault = self.errors.from_status(result.status or 500, result.body)
        if result.status is None and isinstance(fault, JudgeUnavailable):
            said = json.loads(result.body)["error"]
            said = said.get("message") or said.get("code") if isinstance(said, dict) else said
            raise JudgeUnavailable(self.errors.sanitize(f"no answer came from the {self.server}: {said}"))
        raise fault


class BatchJudgeClient(CachedJudgeClient):
    """One model with its ways of being asked, in batches. Limits of calls at once or in a minute do not bind them."""

    def __init__(
        self, model: BatchJudge, config: JudgeConfig, ledger: Ledger, rounds: BatchScheduler, account: Account
    ) -> None:
        super().__init__(model, config, ledger, RateLimiter(max_concurrency=config.max_concurrency), account)
        self._judge = model
        self._rounds = rounds
        self._account = account

    async def close(self) -> None:
        await self._rounds.close()
        await super().close()

    async def _make_attempt(self, attempt: Attempt, parser: ReplyParser[Any]) -> tuple[Exchange | None, bool]:
        made = await super()._make_attempt(attempt, parser)
        self._rounds.settle(_name(attempt))
        return made

    async def _send(self, attempt: Attempt) -> ChatReply:
        async with self._account.call(attempt.request) as paid:
            try:
                answer = await self._answered(attempt)
            except asyncio.CancelledError:
                paid.used = Usage()  # the run that takes its answer in pays for it
                raise
            paid.settle(answer.usage, answer.text)
            return answer

    async def _answered(self, attempt: Attempt) -> ChatReply:
        """The model's answer, which goes into further rounds, up to `max_retries` of them, where none of use comes."""
        question = attempt.request
        name = _name(attempt)
        failures = 0
        while True:
            result = await self._rounds.ask(
                name,
                lambda: self._judge.line(name, question, temperature=attempt.temperature),
                lambda: self._find_recorded(attempt) is not None,
            )
            if result is None:
                self._rounds.settle(name)
                return self._answer_of_another(attempt)
            try:
                return self._judge.read(result, question)
            except (JudgeUnavailable, JudgeProtocolError, JudgeRefused) as fault:
                self._rounds.settle(name)
                if isinstance(fault, JudgeRefused):
                    raise
                failures += 1
                if failures > self._config.max_retries:
                    self.retrying.counts["failed"] += 1
                    raise RequestFailed(f"{fault} ({failures} rounds; the next run asks this one again)") from None
                self.retrying.counts["retries"] += 1

    def _answer_of_another(self, attempt: Attempt) -> ChatReply:
        exchange = self._find_recorded(attempt)
        assert exchange is not None, "nothing leaves the ledger"
        if exchange.outcome == "refused":
            raise RequestRefused(exchange.reason or "refused")
        return exchange.reply


def _name(attempt: Attempt) -> str:
    """An attempt's id in the files: providers take 64 signs at most."""
    return hashlib.sha256(f"{attempt.key} {attempt.number} {attempt.temperature!r}".encode()).hexdigest()[:40]


# Opens what asks in batches: one folder and one series of rounds for each model on each server.


class BatchClients:
    """The rounds of one process; `path` is that of the ledger, beside which their files lie."""

    def __init__(self, ledger: Ledger, path: Path | None) -> None:
        if path is None:
            raise ConfigError(
                "judge.mode batch needs a ledger, since its answers come hours later: name a file for it, or set "
                "judge.mode to live"
            )
        self._ledger = ledger
        self._path = path
        self._rounds: dict[tuple[str, str, str], BatchScheduler] = {}

    def asker(self, config: JudgeConfig, account: Account) -> BatchJudgeClient:
        """One that asks as `config` says. Raises ConfigError where a key is missing, StateError for the disk."""
        judge = BatchJudge(config)
        server = (str(judge.client.base_url), judge.name, config.mode)
        if server not in self._rounds:
            folder = BatchFolder(self._path, address=server[0], model=judge.name)
            courier = None
            if config.mode == "batch":
                sent_to = BatchServer(judge, endpoint=config.endpoint, max_retries=config.max_retries)
                courier = BatchRunner(folder, sent_to, config.batch)
            self._rounds[server] = BatchScheduler(folder, courier, _limited(config))
        return BatchJudgeClient(judge, config, self._ledger, self._rounds[server], account)


def _limited(config: JudgeConfig) -> BatchConfig:
    """The settings, with the provider's own limit of a file where none is set."""
    if config.batch.megabytes_per_file is not None or config.kind != "zhipu":
        return config.batch
    return config.batch.model_copy(update={"megabytes_per_file": ZHIPU_MB})


ZHIPU_MB = 100.0  # a file, by its documentation
