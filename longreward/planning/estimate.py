"""Count the requests of scoring: run scoring with a dry-run judge, and estimate what depends on unknown replies.

exact      ratings, extraction and statements of each response; the requests that follow from replies in the ledger
estimated  support requests for statements that are not listed yet; tokens of replies
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from longreward.judge import JudgeConfig
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES, SUPPORT_LIST
from longreward.judge.usage import PricesConfig
from longreward.planning.dry_run import DryRunJudge, RecordedRequest, judge_name
from longreward.planning.reply_stats import Range, expected_reply_tokens, expected_statements, read_reply_stats
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, Scorer, open_scorer
from longreward.reward.statement_groups import SUPPORT_TOKENS
from longreward.utils.language import detect_language
from longreward.utils.token_spans import open_tokenizer

ScoringItem = tuple[Example, Sequence[Response]]

ZERO = Range()
STATEMENT_TOKENS = 25  # assumed, of one statement in a support request
EXTRACT_TOKENS = 60  # assumed, of one extract in a completeness request
RUBRIC_TOKENS = 100  # assumed, of a rubric that the judge has not written yet
MAX_CHARACTERS_PER_TOKEN = 8  # a longer text has more tokens, in any language
CACHED_TEXTS = 512  # prompts, and texts of one document, come up again and again
# With score.strategy `adaptive`, these templates are needed for at least two responses only.
ADAPTIVE_TEMPLATES = ("statements", "support", "completeness")

# Assumed speed of one call; the offline judge takes OFFLINE_CALL_S for all of it.
FIRST_TOKEN_S = 1.0
TOKENS_PER_SECOND = 50.0
OFFLINE_CALL_S = 0.002
BATCH_HOURS = 24.0  # the time that providers promise for a batch


@dataclass(frozen=True)
class Requests:
    """The remaining requests with one prompt template, or of a whole stage."""

    calls: Range = ZERO
    prompt_tokens: Range = ZERO
    completion_tokens: Range = ZERO
    cached: float = 0.0
    """Requests whose reply is in the ledger; they cost nothing."""
    money: Range | None = ZERO
    """None: the price of a judge is unknown."""

    def __add__(self, other: "Requests") -> "Requests":
        return Requests(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached + other.cached,
            None if self.money is None or other.money is None else self.money + other.money,
        )


@dataclass
class StagePlan:
    """The remaining requests of one stage."""

    stage: str
    prompts: int = 0
    responses: int = 0
    complete_prompts: float = 0.0
    """Prompts for which all replies are in the ledger."""
    counted_prompts: int = 0
    """Prompts on which the plan is based; if there are more, it is scaled up."""
    templates: dict[str, Requests] = field(default_factory=dict)
    seconds: Range = ZERO
    observed_replies: dict[str, int] = field(default_factory=dict)
    """Replies in the ledger that the expected replies are based on, by template."""

    @property
    def total(self) -> Requests:
        return sum(self.templates.values(), Requests())

    def metrics(self) -> dict[str, float]:
        """Return the forecast as metrics of the stage."""
        total = self.total
        metrics = {
            "forecast/calls": total.calls.expected,
            "forecast/calls_low": total.calls.low,
            "forecast/calls_high": total.calls.high,
            "forecast/prompt_tokens": total.prompt_tokens.expected,
            "forecast/completion_tokens": total.completion_tokens.expected,
        }
        return metrics if total.money is None else metrics | {"forecast/money": total.money.expected}

    def as_json(self) -> dict[str, Any]:
        """Return all fields and the total over all templates."""
        return asdict(self) | {"total": asdict(self.total)}


async def plan_scoring(
    stage: str,
    judge: JudgeConfig,
    config: ScoreConfig,
    prices: PricesConfig,
    items: Iterable[ScoringItem],
    *,
    ledger: Path | None,
    total_prompts: int | None = None,
    time_limit_s: float | None = None,
    make_scorer: Callable[..., Scorer] = open_scorer,
) -> StagePlan:
    """Count the requests of scoring `items` without calls, embeddings and writes.

    Args:
        stage: the name for the plan.
        judge: the section `judge`.
        config: the section `score`.
        prices: the section `prices`.
        items: prompts with their responses.
        ledger: the replies so far.
        total_prompts: number of prompts that `items` are a sample of; None: all.
        time_limit_s: stop after this many seconds, and scale up from the prompts counted so far.
        make_scorer: opens the scorer, for a caller that has its own.

    Raises:
        ConfigError: prompts or tokenizer are missing.
    """
    deadline = time.monotonic() + time_limit_s if time_limit_s is not None else None
    plan = StagePlan(stage)
    full_config = config.model_copy(update={"strategy": "full"})
    retriever = None if config.retriever.embedding_kind is None else _FirstChunks()
    async with (
        DryRunJudge(judge, ledger=ledger) as dry_run,
        Scorer(full_config, retriever=retriever) as full_scorer,
        make_scorer(config, retriever=retriever) as scorer,
    ):
        counter = _RequestCounter(judge, full_config, ledger, plan)
        for example, responses in items:
            scored = await scorer.score(dry_run, example, responses)
            if config.strategy == "adaptive" and not dry_run.all_cached:
                # What this strategy requests next depends on unknown replies, so count the most that it may request.
                dry_run.discard_requests()
                scored = await full_scorer.score(dry_run, example, responses)
            plan.complete_prompts += dry_run.all_cached
            counter.add(example, responses, scored, dry_run.pop_requests())
            if deadline is not None and time.monotonic() > deadline:
                break
    counter.finish(total_prompts, prices, is_adaptive=config.strategy == "adaptive")
    return plan


class Recipient(NamedTuple):
    """A prompt template and a judge that gets its requests, by its position in `JudgeConfig.judges()`."""

    template: str
    judge: int


class _RequestCounter:
    """Adds up the requests of one prompt after another."""

    def __init__(self, judge: JudgeConfig, config: ScoreConfig, ledger: Path | None, plan: StagePlan) -> None:
        self._config = config
        self._plan = plan
        self._prompts = config.load_prompts()
        tokenizer = open_tokenizer(config.tokenizer)
        self._count = lru_cache(maxsize=CACHED_TEXTS)(lambda text: len(tokenizer.spans(text)))
        self._judges = [judge_config for judge_config, _ in judge.judges()]
        self._by_template = judge.judges_by_template()
        self._requests: dict[Recipient, Requests] = {}
        stats = read_reply_stats(ledger, self._prompts)
        self._stats = {
            Recipient(template, position): stats.get((judge_name(self._judges[position]), template))
            for template, positions in self._by_template.items()
            for position in positions
        }
        self._system_tokens = [self._count(judge_config.system) for judge_config in self._judges]
        for (template, _), reply_stats in self._stats.items():
            if reply_stats is not None:
                plan.observed_replies[template] = plan.observed_replies.get(template, 0) + reply_stats.replies

    def add(
        self,
        example: Example,
        responses: Sequence[Response],
        scored: ScoredExample,
        requests: Sequence[RecordedRequest],
    ) -> None:
        """Add the recorded requests of one prompt, and estimate those that would follow."""
        self._plan.prompts += 1
        self._plan.counted_prompts += 1
        self._plan.responses += len(responses)
        missing = [recorded for recorded in requests if not recorded.is_cached]
        for request, position, is_cached in requests:
            self._add(Recipient(request.template, position), Requests(cached=is_cached))
        for request, position, _ in missing:
            recipient = Recipient(request.template, position)
            statements = ZERO
            if request.template == "statements":
                statements = expected_statements(request.slots["answer"], self._stats[recipient])
            tokens = self._count(request.text) + self._system_tokens[position]
            self._add_calls(recipient, Range.exactly(1), tokens, request.max_tokens, statements)
        # Completeness requests contain the extracts, so they come up only if all extracts are in the ledger. Else there
        # is one for each distinct response, with some or all extracts unknown.
        extracts_are_missing = any(recorded.request.template == "extraction" for recorded in missing)
        if extracts_are_missing:
            extracts = scored.extraction.extracts
            cached = sum(self._count(extract.text) for extract in extracts if extract.text is not None)
            unknown = sum(extract.reason is not None for extract in extracts)
            for text in dict.fromkeys(response.text for response in responses):
                template = self._prompts.template("completeness", detect_language(example.query, text))
                tokens = sum(self._count(part) for part in (template.text, example.query, text))
                tokens += cached + EXTRACT_TOKENS * unknown
                self._add_panel_calls("completeness", Range.exactly(1), tokens, template.max_tokens)
        if "rubric" in self._config.dimensions and not (scored.rubric and scored.rubric.items):
            self._add_rubric(example, responses, extracts_are_missing=extracts_are_missing)
        # One support request for each statement, or each few, that the replies to these requests will list.
        for request, position, _ in missing:
            if request.template != "statements":
                continue
            answer = request.slots["answer"]
            size = self._config.statements_per_call
            name = "support" if size == 1 else SUPPORT_LIST
            template = self._prompts.template(name, detect_language(example.query, answer))
            evidence = size * self._config.evidence_chunks * self._config.evidence_chunk_tokens
            if len(example.context) <= MAX_CHARACTERS_PER_TOKEN * evidence:
                evidence = min(evidence, self._count(example.context))
            tokens = self._count(template.text) + evidence + size * STATEMENT_TOKENS
            statements = expected_statements(answer, self._stats[Recipient("statements", position)])
            if size > 1:
                most = (math.ceil(count / size) for count in (statements.expected, statements.high))
                statements = Range(statements.low / size, *most)
            self._add_panel_calls(name, statements, tokens, max(template.max_tokens, SUPPORT_TOKENS * size))

    def _add_rubric(self, example: Example, responses: Sequence[Response], *, extracts_are_missing: bool) -> None:
        """Add the request that writes the rubric if the extracts are unknown, and the checks of the responses."""
        if extracts_are_missing:
            template = self._prompts.template("rubric", detect_language(example.query))
            tokens = self._count(template.text) + self._count(example.query) + EXTRACT_TOKENS
            self._add_panel_calls("rubric", Range.exactly(1), tokens, template.max_tokens)
        for text in dict.fromkeys(response.text for response in responses):
            template = self._prompts.template("rubric_check", detect_language(example.query, text))
            tokens = sum(self._count(part) for part in (template.text, example.query, text)) + RUBRIC_TOKENS
            self._add_panel_calls("rubric_check", Range.exactly(1), tokens, template.max_tokens)

    def finish(self, total_prompts: int | None, prices: PricesConfig, *, is_adaptive: bool) -> None:
        """Scale up to all prompts, add repeated attempts, lower the minimum of adaptive scoring, add money and time."""
        plan = self._plan
        scale = total_prompts / plan.prompts if total_prompts is not None and plan.prompts else 1.0
        responses = max(plan.responses // plan.prompts, 1) if plan.prompts else 1  # per prompt
        ordered = [template for templates in DIMENSION_TEMPLATES.values() for template in templates]
        by_judge: dict[int, Requests] = {}
        for recipient in sorted(self._requests, key=lambda key: (ordered.index(key.template), key.judge)):
            template, judge = recipient.template, self._judges[recipient.judge]
            requests, stats = self._requests[recipient], self._stats[recipient]
            attempts = stats.attempts if stats is not None else 1.0
            # At the least, the best and the worst response of each prompt are judged in full.
            minimum = min(2 / responses, 1.0) if is_adaptive and template in ADAPTIVE_TEMPLATES else 1.0
            factor = Range(minimum, attempts, attempts)
            prompt_tokens = requests.prompt_tokens * scale * factor
            completion_tokens = requests.completion_tokens * scale * factor
            money = None
            if (price := prices.price_for(judge)) is not None:
                cost = partial(price.cost, batch=judge.mode != "live")
                money = Range.combine(cost, prompt_tokens, completion_tokens)
            scaled = Requests(
                requests.calls * scale * factor,
                prompt_tokens,
                completion_tokens,
                round(requests.cached * scale),  # not repeated
                money,
            )
            plan.templates[template] = plan.templates.get(template, Requests()) + scaled
            by_judge[recipient.judge] = by_judge.get(recipient.judge, Requests()) + scaled
        plan.prompts, plan.responses = round(plan.prompts * scale), round(plan.responses * scale)
        plan.complete_prompts = round(plan.complete_prompts * scale)
        # All judges work at the same time, so the slowest one determines the duration.
        durations = [
            _duration(judge, by_judge.get(position, Requests())) for position, judge in enumerate(self._judges)
        ]
        plan.seconds = Range.combine(lambda *seconds: max(seconds), *durations)

    def _add_panel_calls(self, template: str, calls: Range, prompt_tokens: float, limit: int) -> None:
        for position in self._by_template[template]:
            self._add_calls(Recipient(template, position), calls, prompt_tokens, limit)

    def _add_calls(
        self, recipient: "Recipient", calls: Range, prompt_tokens: float, limit: int, statements: Range = ZERO
    ) -> None:
        completion_tokens = expected_reply_tokens(
            recipient.template,
            statements=statements,
            limit=limit,
            reasoning_limit=self._judges[recipient.judge].thinking_tokens,
            stats=self._stats[recipient],
        )
        self._add(recipient, Requests(calls, calls * prompt_tokens, calls * completion_tokens))

    def _add(self, recipient: "Recipient", requests: Requests) -> None:
        self._requests[recipient] = self._requests.get(recipient, Requests()) + requests


def _duration(judge: JudgeConfig, requests: Requests) -> Range:
    # Providers usually finish batches earlier, but do not say when.
    if judge.mode != "live":
        seconds = 2 * BATCH_HOURS * 3600 if requests.calls.high else 0.0  # two rounds
        return Range(0.0, seconds / 2, seconds)

    def duration(calls: float, prompt_tokens: float, completion_tokens: float) -> float:
        if judge.kind == "offline":
            return calls * OFFLINE_CALL_S
        limits = [(calls * FIRST_TOKEN_S + completion_tokens / TOKENS_PER_SECOND) / judge.max_concurrency]
        if judge.requests_per_minute is not None:
            limits.append(60 * calls / judge.requests_per_minute)
        if judge.tokens_per_minute is not None:
            limits.append(60 * (prompt_tokens + completion_tokens) / judge.tokens_per_minute)
        return max(limits)

    return Range.combine(duration, requests.calls, requests.prompt_tokens, requests.completion_tokens)


class _FirstChunks:
    """A Retriever that returns the first chunks: embeddings may cost money, and only the length of evidence counts."""

    def __init__(self, chunks: int = 0) -> None:
        self._chunks = chunks

    def index(self, chunks: Sequence[str]) -> "_FirstChunks":
        return _FirstChunks(len(chunks))

    async def search(self, statements: Sequence[str], k: int, query: str = "") -> list[list[int]]:
        return [list(range(min(k, self._chunks))) for _ in statements]

    def settings(self) -> dict[str, str | int | float]:
        return {}

    def metrics(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass
