"""The judge that all scoring asks: one model for all dimensions, or several, on one ledger.

async with open_judge(JudgeConfig(), ledger=Path("ledger.sqlite")) as judge:
    reading = await judge.query(question, parse_rating)
    reading.value    # 7.0, or None with reading.reason
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from longreward.chat_model import ChatModel, ChatRequest
from longreward.judge.attempts import ParsedReply
from longreward.judge.budget import Account, Budget
from longreward.judge.cached_client import CLIENT_COUNTS, CachedJudgeClient
from longreward.judge.config import JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.retry import RETRY_COUNTS
from longreward.judge.truncation import ReadTruncated
from longreward.records import DIMENSIONS, Dimension

T = TypeVar("T")


def open_judge(
    config: JudgeConfig, *, ledger: Path | None, budget: Budget | None = None, writer: JudgeConfig | None = None
) -> "Judge":
    """The judge that `config` describes, with its exchanges kept at `ledger` (None: in memory).

    `writer`: another model, under the same limits where it has the same server, for what belongs to no dimension. It
    spends from `budget`, which stays the caller's to close. Raises ConfigError where a key is missing or the budget
    needs a price that is not known, StateError where the ledger cannot be opened.
    """
    judges = [*([(writer, ())] if writer else []), *config.judges()]
    budget = budget or Budget()
    accounts = [budget.account(each) for each, _ in judges]
    store = Ledger(ledger)
    askers = _askers([each for each, _ in judges], store, accounts, ledger)
    judge = Judge.of([(asker, dimensions) for asker, (_, dimensions) in zip(askers, judges, strict=True)], store)
    judge.prompts_in_flight = max((each.batch.prompts for each, _ in judges if each.mode != "live"), default=None)
    return judge


class Judge:
    """Asks each question of the model that judges its dimension; close it, or use it with `async with`."""

    def __init__(self, model: ChatModel, config: JudgeConfig | None = None, ledger: Ledger | None = None) -> None:
        config, ledger = config or JudgeConfig(), ledger or Ledger(None)
        (limiter,) = _limiters([config])
        self._seat([(CachedJudgeClient(model, config, ledger, limiter), DIMENSIONS)], ledger)

    @classmethod
    def of(cls, askers: "Sequence[tuple[CachedJudgeClient, tuple[Dimension, ...]]]", ledger: Ledger) -> Self:
        """Several models, each with its dimensions; the first answers what belongs to none."""
        judge = cls.__new__(cls)
        judge._seat(askers, ledger)
        return judge

    def _seat(self, askers: "Sequence[tuple[CachedJudgeClient, tuple[Dimension, ...]]]", ledger: Ledger) -> None:
        self.prompts_in_flight: int | None = None
        """How many prompts should be under way, so that a batch is worth sending; None: as many as `score` says."""
        self._askers = list(askers)
        self._ledger = ledger
        of = {dimension: asker for asker, dimensions in askers for dimension in dimensions}
        self._by_template = {name: of[d] for d, names in TEMPLATES_BY_DIMENSION.items() if d in of for name in names}

    @property
    def name(self) -> str:
        """Which judge this is, for the record: one name, or each with its dimensions."""
        named: dict[str, list[str]] = {}
        for asker, dimensions in self._askers:
            named.setdefault(asker.name, []).extend(dimensions)
        if len(named) == 1:
            return self._askers[0][0].name
        return ", ".join(f"{name} ({', '.join(dimensions) or 'the rest'})" for name, dimensions in named.items())

    def name_for(self, template: str) -> str:
        """The name of the one that answers questions of this template."""
        return self._asker(template).name

    async def query(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        *,
        parse_truncated: ReadTruncated[T] | None = None,
    ) -> ParsedReply[T]:
        """The answer to `question` as `read` understands it; `read` gives None where it cannot.

        `read` gets what was said without thoughts. `read_truncated` reads a reply that was cut at its token limit,
        which is asked for again with a larger one where nothing complete stands in it; without it, a cut reply is read
        as any other, as the protocols of published benchmarks have it. Equal questions must be read alike: those in
        flight at once are asked once. Raises JudgeUnavailable, JudgeRefused or JudgeProtocolError where no answer can
        be had, JudgeUnreadable where none of a template's replies can be read, StateError where one could not be kept.
        """
        return await self._asker(request.template).query(request, parse, parse_truncated)

    def metrics(self) -> dict[str, float]:
        """Counts since the judge was opened, and the mean of calls in flight while there were any, as `concurrency`.

        Calls, ledger hits, shared questions, tokens, unreadable, refused and truncated replies, failed questions,
        requests, retries, and requests that were turned away (`throttled`), timed out or lost their connection.

        Over all, and as `judges/<name>/calls` for each where there are several.
        """
        total = dict.fromkeys((*CLIENT_COUNTS, *RETRY_COUNTS), 0.0)
        split: dict[str, float] = {}
        for asker, _ in self._askers:
            for figure, count in (asker.counts | asker.caller.counts).items():
                total[figure] += count
                key = f"judges/{_UNSAFE.sub('_', asker.name)}/{figure}"
                split[key] = split.get(key, 0.0) + count
        limiters = {id(asker.caller.limiter): asker.caller.limiter for asker, _ in self._askers}
        total["concurrency"] = sum(limiter.mean_concurrency for limiter in limiters.values())
        return total | (split if len(split) > len(CLIENT_COUNTS) + len(RETRY_COUNTS) else {})

    async def close(self) -> None:
        """Ends calls that nobody waits for any more and lets go of connections and the ledger."""
        await asyncio.gather(*(asker.close() for asker, _ in self._askers))
        self._ledger.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _asker(self, template: str) -> CachedJudgeClient:
        return self._by_template.get(template, self._askers[0][0])


def request_summary(name: str, figures: Mapping[str, float]) -> str:
    """What a judge's replies cost in requests, on one line, with advice where its server could not follow."""

    def count(figure: str) -> int:
        return round(figures.get(figure, 0))

    requests, replies = count("requests"), count("calls") - count("failed")
    text = f"judge {name}: {replies:,} replies, {count('ledger_hits'):,} from the ledger"
    if not requests:  # none were needed, or they went out in batches
        return text
    text += f", {requests:,} requests, {count('retries'):,} retries"
    reasons = {"timeouts": "timed out", "disconnects": "lost the connection", "throttled": "were turned away"}
    failed = [f"{count(figure):,} {what}" for figure, what in reasons.items() if count(figure)]
    text += f" ({', '.join(failed)})" if failed else ""
    text += f"; {count('unreadable'):,} unreadable and {count('truncated'):,} truncated replies"
    if is_overloaded(figures):
        text += (
            f". The server cannot do as much at once: lower judge.max_concurrency ({figures['concurrency']:.0f} were "
            "in flight on average), or raise judge.timeout_s"
        )
    return text


def is_overloaded(figures: Mapping[str, float]) -> bool:
    """Whether more than a twentieth of the requests met a server with too much to do."""
    overloads = sum(figures.get(figure, 0) for figure in ("timeouts", "disconnects", "throttled"))
    return overloads > figures.get("requests", 0) / 20


def open_model(config: JudgeConfig) -> ChatModel:
    """The model that answers, without ledger and limits. Raises ConfigError where a key is missing."""
    if config.kind == "offline":
        from longreward.builtin.offline_judge.judge import OfflineJudge

        return OfflineJudge()
    from longreward.judge.http_client import HttpJudge

    return HttpJudge(config)


def _askers(
    configs: Sequence[JudgeConfig], store: Ledger, accounts: Sequence[Account], ledger: Path | None
) -> list[CachedJudgeClient]:
    """One for each, which asks as its mode says."""
    batches = None
    if any(config.mode != "live" for config in configs):
        from longreward.judge.batch.client import BatchClients

        batches = BatchClients(store, ledger)
    return [
        batches.asker(config, account)
        if batches is not None and config.mode != "live"
        else CachedJudgeClient(open_model(config), config, store, limiter, account)
        for config, limiter, account in zip(configs, _limiters(configs), accounts, strict=True)
    ]


def _limiters(configs: Sequence[JudgeConfig]) -> list[RateLimiter]:
    """One for each; those of one model on one server share it, under the lowest of their limits."""
    shared: dict[tuple[str | None, str | None], list[JudgeConfig]] = {}
    for config in configs:
        shared.setdefault((config.address, config.model), []).append(config)
    limiters = {
        server: RateLimiter(
            max_concurrency=min(each.max_concurrency for each in group),
            requests_per_minute=_lowest([each.requests_per_minute for each in group]),
            tokens_per_minute=_lowest([each.tokens_per_minute for each in group]),
            adaptive=all(each.adaptive for each in group),
        )
        for server, group in shared.items()
    }
    return [limiters[config.address, config.model] for config in configs]


def _lowest(limits: Sequence[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


TEMPLATES_BY_DIMENSION: Mapping[Dimension, tuple[str, ...]] = {
    "helpfulness": ("helpfulness",),
    "logicality": ("logicality",),
    "faithfulness": ("statements", "support"),
    "completeness": ("extraction", "completeness"),
}
_UNSAFE = re.compile(r"[^\w.\-]")  # MLflow takes no other signs, and no "//", as a model's path would make
