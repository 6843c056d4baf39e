"""What a scoring will ask: scoring itself is rehearsed on each prompt, and what hangs on unknown answers is estimated.

known exactly    ratings, extraction and statements of each response; of what was asked before, the rest too
estimated        support calls of statements that nobody has listed yet; tokens of answers
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from longreward.chat_model import ChatRequest
from longreward.judge import JudgeConfig
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import load_prompts
from longreward.planning.dry_run import DryRunJudge, RecordedRequest, name_of
from longreward.planning.reply_stats import EXTRACT_TOKENS, STATEMENT, Range, answer_tokens, reply_stats, statements_in
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, Scorer, open_scorer
from longreward.utils.language import detect_language
from longreward.utils.token_spans import TextTokenizer, open_tokenizer

ScoringItem = tuple[Example, Sequence[Response]]
NONE = Range()


@dataclass
class RequestTally:
    """What the questions of one template come to."""

    calls: Range = NONE
    prompt_tokens: Range = NONE
    completion_tokens: Range = NONE
    answered: float = 0.0
    """Questions whose answer is in the ledger."""

    def add(self, calls: Range, prompt_tokens: float, completion_tokens: Range) -> None:
        """Calls of so many tokens each."""
        self.calls += calls
        self.prompt_tokens += calls * prompt_tokens
        self.completion_tokens += calls * completion_tokens

    def times(self, factor: "float | Range") -> "RequestTally":
        """For more prompts than were looked at, or for calls that are made again."""
        answered = self.answered * factor if isinstance(factor, float) else self.answered
        return RequestTally(self.calls * factor, self.prompt_tokens * factor, self.completion_tokens * factor, answered)


@dataclass
class ScoringEstimate:
    """What came up; `tallies` by template."""

    tallies: dict[str, RequestTally] = field(default_factory=dict)
    prompts: int = 0
    responses: int = 0
    complete: float = 0.0
    """Prompts of which nothing is left to ask."""
    looked_at: int = 0
    learnt: dict[str, int] = field(default_factory=dict)
    """By template: answers in the ledger that estimates were learnt from."""


async def estimate_scoring(
    judge: JudgeConfig,
    config: ScoreConfig,
    items: Iterable[ScoringItem],
    *,
    ledger: Path | None,
    of: int | None = None,
    limit_s: float | None = None,
) -> ScoringEstimate:
    """Counts over `items`, which stand for `of` prompts (None: for themselves); ends after `limit_s` seconds.

    Asks nobody, embeds nothing and writes nothing. Raises ConfigError where prompts or tokenizer are missing.
    """
    until = time.monotonic() + limit_s if limit_s is not None else None
    found = ScoringEstimate()
    full = config.model_copy(update={"strategy": "full"})
    unembedded = None if config.retriever.kind == "bm25" else _FirstChunks()
    async with (
        DryRunJudge.open(judge, ledger=ledger) as rehearsal,
        Scorer(full, retriever=unembedded) as scorer,
        open_scorer(config, retriever=unembedded) as pruning,
    ):
        counting = _Counting(judge, full, ledger, found)
        for example, responses in items:
            scored = await pruning.score(rehearsal, example, responses)
            if config.strategy == "adaptive" and not rehearsal.all_answered:
                rehearsal.forget()  # what it would ask next hangs on answers that nobody knows
                scored = await scorer.score(rehearsal, example, responses)
            found.complete += rehearsal.all_answered
            counting.add(example, responses, scored, rehearsal.take())
            if until is not None and time.monotonic() > until:
                break
    counting.finish(of, n=max((found.responses // found.prompts) if found.prompts else 0, 1), config=config)
    return found


class _Counting:
    """Adds up the questions of one prompt after another."""

    def __init__(self, judge: JudgeConfig, config: ScoreConfig, ledger: Path | None, found: ScoringEstimate) -> None:
        self._config = config
        self._found = found
        self._prompts = load_prompts(config.prompts_dir, config.prompts_manifest, parsing=config.parsing)
        self._tokenizer = open_tokenizer(config.tokenizer)
        self._counter = TokenCounter(self._tokenizer)
        self._judges = judges_by_template(judge)
        learnt = reply_stats(ledger, self._prompts)
        self._habits = {template: learnt.get((name_of(each), template)) for template, each in self._judges.items()}
        self._system = {t: self._counter.of_text(each.system) for t, each in self._judges.items()}
        found.learnt = {template: habit.answers for template, habit in self._habits.items() if habit is not None}

    def add(
        self, example: Example, responses: Sequence[Response], scored: ScoredExample, noted: Sequence[RecordedRequest]
    ) -> None:
        found = self._found
        found.prompts += 1
        found.looked_at += 1
        found.responses += len(responses)
        for each in noted:
            if each.answered:
                self._tally(each.question.template).answered += 1
            else:
                self._add_question(each)
        if any(not each.answered and each.question.template == "extraction" for each in noted):
            self._add_completeness(example, responses, scored)
        unlisted = [each for each in noted if not each.answered and each.question.template == "statements"]
        if unlisted:
            self._add_support(example, [each.question.slots["answer"] for each in unlisted])

    def finish(self, of: int | None, *, n: int, config: ScoreConfig) -> None:
        """Scales up to all prompts, counts repeated attempts, and lowers what pruning may leave out."""
        found = self._found
        factor = of / found.prompts if of is not None and found.prompts else 1.0
        pruned = config.strategy == "adaptive"
        for template, tally in found.tallies.items():
            habit = self._habits[template]
            attempts = habit.attempts if habit is not None else 1.0
            least = min(2 / n, 1.0) if pruned and template in PRUNED else 1.0
            found.tallies[template] = tally.times(factor).times(Range(least, attempts, attempts))
        found.prompts, found.responses = round(found.prompts * factor), round(found.responses * factor)
        found.complete *= factor

    def _add_question(self, noted: RecordedRequest) -> None:
        question = noted.question
        statements = NONE
        if question.template == "statements":
            statements = statements_in(question.slots["answer"], self._habits["statements"])
        tokens = self._counter.of(question) + self._system[question.template]
        self._add(question.template, Range.exactly(1), tokens, question.max_tokens, statements)

    def _add_completeness(self, example: Example, responses: Sequence[Response], scored: ScoredExample) -> None:
        """One call for each distinct response; what the document holds on the query is partly or wholly unknown."""
        extracts = scored.extraction.extracts
        known = sum(self._counter.of_text(each.text) for each in extracts if each.text is not None)
        unknown = sum(each.reason is not None for each in extracts)
        for text in dict.fromkeys(response.text for response in responses):
            template = self._template("completeness", example.query, text)
            own = sum(self._counter.of_text(each) for each in (template.text, example.query, text))
            extracted = known + EXTRACT_TOKENS.expected * unknown
            self._add("completeness", Range.exactly(1), own + extracted, template.max_tokens)

    def _add_support(self, example: Example, responses: Sequence[str]) -> None:
        """A call for each statement that somebody is yet to list."""
        habit = self._habits["statements"]
        for text in responses:
            template = self._template("support", example.query, text)
            tokens = self._counter.of_text(template.text) + self._evidence(example) + STATEMENT
            calls = statements_in(text, habit)
            self._add("support", calls, tokens, template.max_tokens)

    def _evidence(self, example: Example) -> int:
        shown = self._config.evidence_chunks * self._config.evidence_chunk_tokens
        longest = 8 * shown  # characters: a text of more has more tokens than are shown, in any language
        return shown if len(example.context) > longest else min(shown, self._counter.of_text(example.context))

    def _add(self, template: str, calls: Range, tokens: float, limit: int, statements: Range = NONE) -> None:
        thinking = self._judges[template].thinking_tokens
        habit = self._habits[template]
        answer = answer_tokens(template, statements=statements, limit=limit, thinking=thinking, habit=habit)
        self._tally(template).add(calls, tokens, answer)

    def _tally(self, template: str) -> RequestTally:
        return self._found.tallies.setdefault(template, RequestTally())

    def _template(self, name: str, *texts: str) -> PromptTemplate:
        return self._prompts.template(name, detect_language(*texts))


def judges_by_template(config: JudgeConfig) -> dict[str, JudgeConfig]:
    """Who answers the questions of each template."""
    from longreward.judge.prompts import DIMENSION_TEMPLATES

    return {
        name: judge for judge, own in config.judges() for dimension in own for name in DIMENSION_TEMPLATES[dimension]
    }


class _FirstChunks:
    """A Retriever in place of one that embeds, which may cost something: what it finds is of the right length."""

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


PRUNED = ("statements", "support", "completeness")  # what `score.strategy: adaptive` need not ask of every response


# Tokens of questions, by the tokenizer that `score.tokenizer` names: each text is counted once, not once a prompt.


class TokenCounter:
    """Counts by parts: a template's own words once, and each text that fills it while it is of late."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._own: dict[str, int] = {}  # by the template's hash
        self.of_text = lru_cache(maxsize=KEPT)(self._count)

    def of(self, question: ChatRequest) -> int:
        """The whole question, without the frame that a server puts around it."""
        filled = sum(self.of_text(text) for text in question.slots.values())
        if question.prompt_hash not in self._own:
            self._own[question.prompt_hash] = self._count(question.text) - filled
        return max(self._own[question.prompt_hash] + filled, 0)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.spans(text))


KEPT = 512  # texts; of long documents a few are enough, since all questions about one come together
