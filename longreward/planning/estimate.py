"""Count the requests of scoring: run scoring with a dry-run judge, and estimate what depends on unknown replies.

exact      ratings, extraction and statements of each response; the requests that follow from replies in the ledger
estimated  support requests for statements that are not listed yet; tokens of replies
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from longreward.chat_model import ChatRequest
from longreward.judge import JudgeConfig
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES
from longreward.judge.prompts import load_prompts
from longreward.planning.dry_run import DryRunJudge, judge_name
from longreward.planning.reply_stats import Range, expected_reply_tokens, expected_statements, read_reply_stats
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, Scorer, open_scorer
from longreward.utils.language import detect_language
from longreward.utils.token_spans import TextTokenizer, open_tokenizer

ScoringItem = tuple[Example, Sequence[Response]]

ZERO = Range()
STATEMENT_TOKENS = 25  # assumed, of one statement in a support request
EXTRACT_TOKENS = 60  # assumed, of one extract in a completeness request
MAX_CHARACTERS_PER_TOKEN = 8  # a longer text has more tokens, in any language
CACHED_TEXTS = 512  # all requests about one document come together
# With score.strategy `adaptive`, these templates are needed for at least two responses only.
ADAPTIVE_TEMPLATES = ("statements", "support", "completeness")


@dataclass
class RequestTally:
    """The requests of one template."""

    calls: Range = ZERO
    prompt_tokens: Range = ZERO
    completion_tokens: Range = ZERO
    cached: float = 0.0
    """Requests whose reply is in the ledger."""


@dataclass
class ScoringEstimate:
    """The requests of scoring some prompts, by template."""

    tallies: dict[str, RequestTally] = field(default_factory=dict)
    prompts: int = 0
    responses: int = 0
    complete: float = 0.0
    """Prompts for which all replies are in the ledger."""
    counted_prompts: int = 0
    """Prompts on which the estimate is based."""
    observed_replies: dict[str, int] = field(default_factory=dict)
    """Replies in the ledger that the expected replies are based on, by template."""


async def estimate_scoring(
    judge: JudgeConfig,
    config: ScoreConfig,
    items: Iterable[ScoringItem],
    *,
    ledger: Path | None,
    total_prompts: int | None = None,
    time_limit_s: float | None = None,
) -> ScoringEstimate:
    """Count the requests of scoring `items` without calls, embeddings and writes.

    Args:
        judge: the section `judge`.
        config: the section `score`.
        items: prompts with their responses.
        ledger: the replies so far.
        total_prompts: number of prompts that `items` are a sample of; None: all.
        time_limit_s: stop after this many seconds, and scale up from the prompts counted so far.

    Raises:
        ConfigError: prompts or tokenizer are missing.
    """
    deadline = time.monotonic() + time_limit_s if time_limit_s is not None else None
    estimate = ScoringEstimate()
    full_config = config.model_copy(update={"strategy": "full"})
    retriever = None if config.retriever.kind == "bm25" else _FirstChunks()
    async with (
        DryRunJudge(judge, ledger=ledger) as dry_run,
        Scorer(full_config, retriever=retriever) as full_scorer,
        open_scorer(config, retriever=retriever) as scorer,
    ):
        counter = _RequestCounter(judge, full_config, ledger, estimate)
        for example, responses in items:
            scored = await scorer.score(dry_run, example, responses)
            if config.strategy == "adaptive" and not dry_run.all_cached:
                # What this strategy requests next depends on unknown replies, so count the most that it may request.
                dry_run.discard_requests()
                scored = await full_scorer.score(dry_run, example, responses)
            estimate.complete += dry_run.all_cached
            counter.add(example, responses, scored, dry_run.pop_requests())
            if deadline is not None and time.monotonic() > deadline:
                break
    counter.finish(total_prompts, is_adaptive=config.strategy == "adaptive")
    return estimate


class _RequestCounter:
    """Adds up the requests of one prompt after another."""

    def __init__(self, judge: JudgeConfig, config: ScoreConfig, ledger: Path | None, estimate: ScoringEstimate) -> None:
        self._config = config
        self._estimate = estimate
        self._prompts = load_prompts(config.prompts_dir, config.prompts_manifest, parsing=config.parsing)
        self._tokens = TokenCounter(open_tokenizer(config.tokenizer))
        self._judges = judges_by_template(judge)
        stats = read_reply_stats(ledger, self._prompts)
        self._stats = {template: stats.get((judge_name(one), template)) for template, one in self._judges.items()}
        self._system_tokens = {name: self._tokens.count_text(one.system) for name, one in self._judges.items()}
        estimate.observed_replies = {name: one.replies for name, one in self._stats.items() if one is not None}

    def add(
        self,
        example: Example,
        responses: Sequence[Response],
        scored: ScoredExample,
        requests: Sequence[tuple[ChatRequest, bool]],
    ) -> None:
        """Add the recorded requests of one prompt, and estimate those that would follow."""
        self._estimate.prompts += 1
        self._estimate.counted_prompts += 1
        self._estimate.responses += len(responses)
        missing = [request for request, is_cached in requests if not is_cached]
        for request, is_cached in requests:
            self._tally(request.template).cached += is_cached
        for request in missing:
            statements = ZERO
            if request.template == "statements":
                statements = expected_statements(request.slots["answer"], self._stats["statements"])
            tokens = self._tokens.count_request(request) + self._system_tokens[request.template]
            self._add(request.template, Range.exactly(1), tokens, request.max_tokens, statements)
        # Completeness requests contain the extracts, so they come up only if all extracts are in the ledger. Else there
        # is one for each distinct response, with some or all extracts unknown.
        if any(request.template == "extraction" for request in missing):
            extracts = scored.extraction.extracts
            cached = sum(self._tokens.count_text(extract.text) for extract in extracts if extract.text is not None)
            unknown = sum(extract.reason is not None for extract in extracts)
            for text in dict.fromkeys(response.text for response in responses):
                template = self._prompts.template("completeness", detect_language(example.query, text))
                tokens = sum(self._tokens.count_text(part) for part in (template.text, example.query, text))
                tokens += cached + EXTRACT_TOKENS * unknown
                self._add("completeness", Range.exactly(1), tokens, template.max_tokens)
        # One support request for each statement that the replies to these requests will list.
        for request in missing:
            if request.template != "statements":
                continue
            answer = request.slots["answer"]
            template = self._prompts.template("support", detect_language(example.query, answer))
            evidence = self._config.evidence_chunks * self._config.evidence_chunk_tokens
            if len(example.context) <= MAX_CHARACTERS_PER_TOKEN * evidence:
                evidence = min(evidence, self._tokens.count_text(example.context))
            tokens = self._tokens.count_text(template.text) + evidence + STATEMENT_TOKENS
            self._add("support", expected_statements(answer, self._stats["statements"]), tokens, template.max_tokens)

    def finish(self, total_prompts: int | None, *, is_adaptive: bool) -> None:
        """Scale up to all prompts, add repeated attempts, and lower the minimum of adaptive scoring."""
        estimate = self._estimate
        scale = total_prompts / estimate.prompts if total_prompts is not None and estimate.prompts else 1.0
        responses = max(estimate.responses // estimate.prompts, 1) if estimate.prompts else 1  # per prompt
        for template, tally in estimate.tallies.items():
            stats = self._stats[template]
            attempts = stats.attempts if stats is not None else 1.0
            # At the least, the best and the worst response of each prompt are judged in full.
            minimum = min(2 / responses, 1.0) if is_adaptive and template in ADAPTIVE_TEMPLATES else 1.0
            factor = Range(minimum, attempts, attempts)
            tally.calls = tally.calls * scale * factor
            tally.prompt_tokens = tally.prompt_tokens * scale * factor
            tally.completion_tokens = tally.completion_tokens * scale * factor
            tally.cached *= scale  # cached requests are not repeated
        estimate.prompts, estimate.responses = round(estimate.prompts * scale), round(estimate.responses * scale)
        estimate.complete *= scale

    def _add(self, template: str, calls: Range, prompt_tokens: float, limit: int, statements: Range = ZERO) -> None:
        completion_tokens = expected_reply_tokens(
            template,
            statements=statements,
            limit=limit,
            reasoning_limit=self._judges[template].thinking_tokens,
            stats=self._stats[template],
        )
        tally = self._tally(template)
        tally.calls += calls
        tally.prompt_tokens += calls * prompt_tokens
        tally.completion_tokens += calls * completion_tokens

    def _tally(self, template: str) -> RequestTally:
        return self._estimate.tallies.setdefault(template, RequestTally())


class TokenCounter:
    """Counts the tokens of requests by their parts, so that each text is tokenized once and not once per request."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._template_tokens: dict[str, int] = {}  # by the template's hash
        self.count_text = lru_cache(maxsize=CACHED_TEXTS)(self._count)

    def count_request(self, request: ChatRequest) -> int:
        """Return the tokens of a request, without those that a server's chat template adds."""
        # Tokenizing long documents takes most of the time of a plan. Tokens that merge at the borders of slots are
        # ignored: a few per request.
        slots = sum(self.count_text(text) for text in request.slots.values())
        if request.prompt_hash not in self._template_tokens:
            self._template_tokens[request.prompt_hash] = self._count(request.text) - slots
        return max(self._template_tokens[request.prompt_hash] + slots, 0)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.spans(text))


def judges_by_template(config: JudgeConfig) -> dict[str, JudgeConfig]:
    """Return the judge that receives the requests of each template."""
    return {
        template: judge
        for judge, dimensions in config.judges()
        for dimension in dimensions
        for template in DIMENSION_TEMPLATES[dimension]
    }


class _FirstChunks:
    """A Retriever that returns the first chunks: embeddings may cost money, and only the length of evidence counts."""

    def __init__(self, chunks: int = 0) -> None:
        self._chunks = chunks

    def index(self, chunks: Sequence[str]) -> "_FirstChunks":
        return _FirstChunks(len(chunks))

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        return [list(range(min(k, self._chunks))) for _ in queries]

    def settings(self) -> dict[str, str | int]:
        return {}

    def metrics(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass
