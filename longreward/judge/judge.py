"""The judge that all scoring queries: one model for all dimensions, or several, or a panel, with one ledger.

    async with open_judge(JudgeConfig(), ledger=Path("ledger.sqlite")) as judge:
        reply = await judge.query(request, parse_rating)
        reply.value    # 7.0, or None with reply.reason

One query passes through these modules, in this order:

    judge.py          picks the client of the request's dimension, or all clients of its panel
    cached_client.py  looks up the ledger, parses replies, repeats unreadable ones, records all (`attempts.py`)
    retry.py          waits for the rate limiter and the budget, repeats failed calls
    http_client.py    sends the request to the server
"""

import asyncio
import itertools
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from longreward.chat_model import ChatModel, ChatRequest
from longreward.judge.attempts import ParsedReply
from longreward.judge.budget import Budget
from longreward.judge.cached_client import CLIENT_COUNTS, CachedJudgeClient
from longreward.judge.config import JudgeConfig, Reducer
from longreward.judge.ledger import Ledger
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.retry import RETRY_COUNTS
from longreward.judge.truncation import TruncatedParser
from longreward.records import DIMENSIONS
from longreward.utils.concurrency import gather
from longreward.utils.plurals import pluralize

T = TypeVar("T")

# MLflow accepts no other characters in a metric name, and no "//", which a model's path would cause.
_INVALID_METRIC_CHARACTERS = re.compile(r"[^\w.\-]")


class Judge:
    """Route each request to the client of its template, or to all clients of a panel; close it, or use `async with`.

    The first client also gets the requests that belong to no dimension. `by_template` has the positions of a template's
    clients (`JudgeConfig.judges_by_template`).
    """

    def __init__(
        self,
        clients: Sequence[CachedJudgeClient],
        by_template: Mapping[str, Sequence[int]],
        ledger: Ledger,
        *,
        reducer: Reducer = "mean",
        prompts_in_flight: int | None = None,
    ) -> None:
        self.reducer = reducer
        """How the ratings of a panel become one."""
        self.prompts_in_flight = prompts_in_flight
        """How many prompts to score concurrently so that a batch is worth sending; None: as many as `score` says."""
        self._clients = list(clients)
        self._by_template = {name: [clients[position] for position in own] for name, own in by_template.items()}
        self._ledger = ledger

    @classmethod
    def from_model(cls, model: ChatModel, config: JudgeConfig | None = None, ledger: Ledger | None = None) -> Self:
        """Make a judge of one model for all dimensions; without `ledger`, exchanges are kept in memory."""
        config, ledger = config or JudgeConfig(), ledger or Ledger(None)
        (limiter,) = _rate_limiters([config])
        return cls([CachedJudgeClient(model, config, ledger, limiter)], {}, ledger)

    @property
    def name(self) -> str:
        """The name for records: that of the model or panel, or each with its dimensions."""
        # A dimension's last template asks for the verdict, and so has all judges of its panel.
        dimensions_by_name: dict[str, list[str]] = {}
        if self._clients[0] not in itertools.chain.from_iterable(self._by_template.values()):
            dimensions_by_name[self._clients[0].name] = []  # the writer of synthesis
        for dimension in DIMENSIONS:
            dimensions_by_name.setdefault(self.name_for(DIMENSION_TEMPLATES[dimension][-1]), []).append(dimension)
        if len(dimensions_by_name) == 1:
            return next(iter(dimensions_by_name))
        return ", ".join(
            f"{name} ({', '.join(dimensions) or 'the rest'})" for name, dimensions in dimensions_by_name.items()
        )

    def name_for(self, template: str) -> str:
        """Return the name of the model that gets requests of this template, or the names of a panel."""
        return join_names(client.name for client in self._clients_for(template))

    async def query(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        *,
        parse_truncated: TruncatedParser[T] | None = None,
    ) -> ParsedReply[T]:
        """Return the parsed reply to `request`, from the ledger or from the model.

        Args:
            request: Equal requests must be parsed alike: those in flight at once are sent once.
            parse: Gets the text of a reply without reasoning; returns None for an unreadable reply, which is requested
                again, up to `max_attempts` times.
            parse_truncated: Parses a reply that was cut off at its token limit; if it is not complete, it is requested
                again with a larger limit. None: truncated replies are parsed like any other, as the protocols of
                published benchmarks do.

        Raises:
            JudgeUnavailable, JudgeRefused, JudgeProtocolError: The model gave no reply.
            UnreadableReply: No reply to any request of the template could be parsed.
            BudgetExceeded: The budget is spent.
            StateError: An exchange could not be recorded.
        """
        return await self._query(self._clients_for(request.template)[0], request, parse, parse_truncated)

    async def query_panel(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        *,
        parse_truncated: TruncatedParser[T] | None = None,
    ) -> list[ParsedReply[T]]:
        """Return the reply of each judge of the template's panel, mostly of one, in a fixed order; like `query`.

        The first judge that fails ends the others' calls; the replies so far are in the ledger.
        """
        clients = self._clients_for(request.template)
        return await gather(self._query(client, request, parse, parse_truncated) for client in clients)

    async def _query(
        self,
        client: CachedJudgeClient,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        parse_truncated: TruncatedParser[T] | None,
    ) -> ParsedReply[T]:
        return await client.query(request, parse, parse_truncated)

    def metrics(self) -> dict[str, float]:
        """Return counts since the judge was opened, over all models, and the mean number of calls in flight.

        The counts are CLIENT_COUNTS and RETRY_COUNTS; with several models also `judges/<name>/<count>` for each.
        """
        totals = dict.fromkeys((*CLIENT_COUNTS, *RETRY_COUNTS), 0.0)
        by_model: dict[str, float] = {}
        for client in self._clients:
            for metric, count in (client.counts | client.retrying.counts).items():
                totals[metric] += count
                key = f"judges/{metric_name(client.name)}/{metric}"
                by_model[key] = by_model.get(key, 0.0) + count
        # Clients of one model on one server share a rate limiter.
        limiters = {id(client.retrying.limiter): client.retrying.limiter for client in self._clients}
        metrics = totals | {"concurrency": sum(limiter.mean_concurrency for limiter in limiters.values())}
        return metrics | by_model if len(by_model) > len(totals) else metrics

    def count_replies(self) -> str:
        """Return the number of replies so far, those of the ledger included, as the detail of a progress display."""
        counts = self.metrics()
        return pluralize(round(counts["calls"] - counts["failed"] + counts["ledger_hits"]), "judge reply")

    async def close(self) -> None:
        """Cancel calls that nobody waits for any more, and close connections and the ledger."""
        await asyncio.gather(*(client.close() for client in self._clients))
        self._ledger.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _clients_for(self, template: str) -> list[CachedJudgeClient]:
        return self._by_template.get(template, self._clients[:1])


def open_judge(
    config: JudgeConfig, *, ledger: Path | None, budget: Budget | None = None, writer: JudgeConfig | None = None
) -> Judge:
    """Open the judge that `config` describes.

    Args:
        ledger: File that records all exchanges; None: in memory.
        budget: Limits the calls of the judge and the writer; the caller closes it.
        writer: Another model for requests that belong to no dimension (synthesis); it shares the rate limits of the
            judge where both are one model on one server.

    Raises:
        ConfigError: A key is missing, or the budget needs a price that is unknown.
        StateError: The ledger cannot be opened.
    """
    writers = [writer] if writer else []
    configs = [*writers, *(judge for judge, _ in config.judges())]
    by_template = {
        template: [len(writers) + position for position in positions]
        for template, positions in config.judges_by_template().items()
    }
    budget = budget or Budget()
    accounts = [budget.account(model_config) for model_config in configs]
    store = Ledger(ledger)
    # Fewer prompts in flight would leave the largest batches incomplete.
    batch_sizes = [model_config.batch.prompts for model_config in configs if model_config.mode != "live"]
    batches = None
    if batch_sizes:
        from longreward.judge.batch.client import BatchClients

        batches = BatchClients(store, ledger)
    clients: list[CachedJudgeClient] = []
    for model_config, account, limiter in zip(configs, accounts, _rate_limiters(configs), strict=True):
        if batches is not None and model_config.mode != "live":
            clients.append(batches.open(model_config, account))
        else:
            clients.append(CachedJudgeClient(open_model(model_config), model_config, store, limiter, account))
    return Judge(
        clients,
        by_template,
        store,
        reducer=config.reducer,
        prompts_in_flight=max(batch_sizes, default=None),
    )


def open_model(config: JudgeConfig) -> ChatModel:
    """Open the model itself, without ledger and limits. Raises ConfigError where a key is missing."""
    if config.kind == "offline":
        from longreward.builtin.offline_judge.judge import OfflineJudge

        return OfflineJudge()
    client: Callable[[JudgeConfig], ChatModel] = pkgutil.resolve_name(config.provider.client)
    return client(config)


def metric_name(model: str) -> str:
    """Return a model's name as a part of a metric's name."""
    return _INVALID_METRIC_CHARACTERS.sub("_", model)


def join_names(names: Iterable[str]) -> str:
    """Return the name of a judge, or of the judges of a panel."""
    return " + ".join(dict.fromkeys(names))


def request_summary(name: str, metrics: Mapping[str, float]) -> str:
    """Summarize the requests of a judge on one line, with advice where its server was overloaded."""
    counts = Counter({metric: round(value) for metric, value in metrics.items()})
    replies = counts["calls"] - counts["failed"]
    text = f"judge {name}: {pluralize(replies, 'reply')}, {counts['ledger_hits']:,} from the ledger"
    if not counts["requests"]:  # all from the ledger, or sent in batches
        return text
    text += f", {pluralize(counts['requests'], 'request')}, {pluralize(counts['retries'], 'retry')}"
    labels = {"timeouts": "timed out", "disconnects": "lost the connection", "throttled": "were turned away"}
    failures = [f"{counts[metric]:,} {label}" for metric, label in labels.items() if counts[metric]]
    text += f" ({', '.join(failures)})" if failures else ""
    text += f"; {counts['unreadable']:,} unreadable and {pluralize(counts['truncated'], 'truncated reply')}"
    text += f", {pluralize(counts['reminders'], 'reminder')} of the format" if counts["reminders"] else ""
    if is_overloaded(metrics):
        text += (
            f". The server cannot do as much at once: lower judge.max_concurrency ({metrics['concurrency']:.0f} were "
            "in flight on average), or raise judge.timeout_s"
        )
    return text


def is_overloaded(metrics: Mapping[str, float]) -> bool:
    """Whether more than 5 % of the requests met an overloaded server."""
    overloads = sum(metrics.get(metric, 0) for metric in ("timeouts", "disconnects", "throttled"))
    return overloads > metrics.get("requests", 0) / 20


def _rate_limiters(configs: Sequence[JudgeConfig]) -> list[RateLimiter]:
    """Make the rate limiters; configs of one model on one server share one, with the lowest of their limits."""
    limiters: dict[tuple[str | None, str | None], RateLimiter] = {}
    for config in configs:
        group = [other for other in configs if (other.address, other.model) == (config.address, config.model)]
        requests = [other.requests_per_minute for other in group if other.requests_per_minute is not None]
        tokens = [other.tokens_per_minute for other in group if other.tokens_per_minute is not None]
        limiter = RateLimiter(
            max_concurrency=min(other.max_concurrency for other in group),
            requests_per_minute=min(requests, default=None),
            tokens_per_minute=min(tokens, default=None),
            adaptive=all(other.adaptive for other in group),
        )
        limiters.setdefault((config.address, config.model), limiter)
    return [limiters[config.address, config.model] for config in configs]
