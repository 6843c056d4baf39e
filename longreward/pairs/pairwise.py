"""Pairwise judging (paper, section 4.4): the judge compares two responses at a time, in both orders.

A response is better if both orders say so; a judge that prefers whatever comes first decides nothing. A tournament
finds the best and the worst response with few comparisons. Equal texts take part once.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from longreward.chat_model import estimate_tokens
from longreward.config import Config
from longreward.judge import Judge, ParsedReply
from longreward.judge.continuation import reply_format
from longreward.judge.prompt_manifest import StructuredSpec
from longreward.judge.prompt_template import PromptTemplate, read_prompt
from longreward.judge.reply_parsing import LabelFormat, find_verdict
from longreward.judge.reply_text import normalize_label
from longreward.judge.structured_output import structured_template
from longreward.judge.truncation import truncated_verdict
from longreward.pairs.config import SelectionConfig
from longreward.pairs.outcomes import (
    Outcome,
    can_be_chosen,
    make_no_pair,
    make_pair,
    reason_without_pair,
    sampling_order,
)
from longreward.records import Example, Response
from longreward.utils.concurrency import gather
from longreward.utils.language import Language, detect_language
from longreward.utils.token_spans import SimpleTokenizer, keep_ends

PairwiseVerdict = Literal["A", "B", "C"]
Sign = Literal[-1, 0, 1]
Compare = Callable[[int, int], Coroutine[Any, Any, Sign]]
"""Compare two responses by index: 1 if the first is better, -1 if the second is, 0 for a tie."""
TEMPLATE = "pairwise"
MAX_TOKENS = 512
DEFAULT_CONTEXT_TOKENS = 16384
FOLDER = Path(__file__).parent / "prompt_files"
NOT_SHOWN = "(not shown)"
REMINDERS: dict[Language, str] = {
    "en": "Your reply has no verdict in the required form. Write just one line, which is one of these three: "
    "Better: [[A]] or Better: [[B]] or Better: [[C]]",
    "zh": "你的回复没有按要求的格式给出结论。请只写一行，从以下三行中选一：更好：[[A]]，更好：[[B]]，更好：[[C]]",
}
STRUCTURED = StructuredSpec(
    properties={"analysis": {"type": "string"}, "better": {"type": "string", "enum": ["A", "B", "C"]}},
    replace={
        "en": {
            "in exactly one of these forms: Better: [[A]] where A": "as A where A",
            "better, Better: [[B]] where B does, Better: [[C]] where neither does.": "better, B where B does, C where "
            'neither does. Write both as JSON, in exactly this form: {"analysis": "…", "better": "C"}',
        },
        "zh": {
            "严格用以下形式之一给出结论": "给出结论",
            "A更好时写 更好：[[A]]，B更好时写 更好：[[B]]，": "A更好时写A，B更好时写B，",
            "时写 更好：[[C]]。": '时写C。把分析和结论写成JSON，格式必须是：{"analysis": "…", "better": "C"}',
        },
    },
    reminder={
        "en": "Your reply has no verdict in the required form. Write just one line of JSON, which is one of these "
        'three: {"better": "A"} or {"better": "B"} or {"better": "C"}',
        "zh": "你的回复没有按要求的格式给出结论。请只写一行JSON，从以下三行中选一："
        '{"better": "A"}，{"better": "B"}，{"better": "C"}',
    },
)
_LABELS: dict[str, PairwiseVerdict] = {"a": "A", "b": "B", "c": "C", "tie": "C", "neither": "C", "平局": "C"}
_LABEL_PREFIX = re.compile(r"^(?:answer|assistant|response|回答|答案) ?")
_RESEMBLES_LABEL = re.compile(r"^[a-z]$|\b(?:tie|both|neither|better|worse)\b|^a\W+b|^b\W+a|或|好")


class PairwiseConfig(Config):
    """The comparisons of `pair.method: pairwise`; not used by other methods."""

    context_tokens: int = Field(default=DEFAULT_CONTEXT_TOKENS, ge=0)
    """Maximum tokens of the document in the prompt, as `score.tokenizer: simple` counts: its first and last halves. 0:
    the judge does not see the document."""


@dataclass(frozen=True)
class Comparison:
    """The judge's verdicts on two responses: with the first one as A, and with the second one as A."""

    first: str
    second: str
    verdicts: tuple[PairwiseVerdict | None, PairwiseVerdict | None]
    better: str | None
    """Id of the response that is better in both orders; None for a tie."""
    reason: str | None
    """Why a verdict is unreadable."""
    judge: str
    prompt_hash: str
    calls: int


@dataclass(frozen=True)
class ComparisonResult:
    """The outcome of one example with all comparisons behind it."""

    example_id: str
    outcome: Outcome
    comparisons: tuple[Comparison, ...]


async def pairwise_pair(
    judge: Judge,
    config: SelectionConfig,
    example: Example,
    responses: Iterable[Response],
    *,
    context_tokens: int = DEFAULT_CONTEXT_TOKENS,
) -> ComparisonResult:
    """Run the tournament of one example's responses."""
    sampled = sampling_order(config, responses)
    if (reason := reason_without_pair(config, sampled)) is not None:
        return ComparisonResult(example.id, make_no_pair(example, reason, sampled), ())
    # If a text was sampled both complete and truncated, the complete sample stands for it.
    by_text = {response.text: response for response in reversed(sampled)}
    by_text |= {response.text: response for response in reversed(sampled) if not response.truncated}
    distinct = [by_text[text] for text in dict.fromkeys(response.text for response in sampled)]
    context = await asyncio.to_thread(shorten_context, example.context, context_tokens)
    # The final comparison may repeat one of the first round; it is not requested again.
    comparisons: dict[tuple[int, int], Comparison] = {}

    async def compare(index: int, opponent: int) -> Sign:
        pair = min(index, opponent), max(index, opponent)
        if pair not in comparisons:
            comparisons[pair] = await _compare(judge, context, distinct[pair[0]], distinct[pair[1]])
        better = comparisons[pair].better
        if better is None:
            return 0
        return 1 if better == distinct[index].id else -1

    indices = await best_and_worst(len(distinct), compare, can_be_chosen(config, distinct))
    if indices is None:
        outcome: Outcome = make_no_pair(example, "best and worst tie", sampled)
    else:
        outcome = make_pair(example, distinct[indices[0]], distinct[indices[1]], method="pairwise")
    return ComparisonResult(example.id, outcome, tuple(comparisons.values()))


async def _compare(judge: Judge, context: str, first: Response, second: Response) -> Comparison:
    prompt = _prompt(detect_language(first.query, first.text, second.text))

    async def query(a: Response, b: Response) -> ParsedReply[PairwiseVerdict]:
        slots = {"context": context, "question": first.query, "answer_a": a.text, "answer_b": b.text}
        request = await asyncio.to_thread(prompt.request, slots, max_tokens=MAX_TOKENS)
        return await judge.query(request, parse_better, parse_truncated=truncated_verdict(parse_better))

    reply, swapped = await gather([query(first, second), query(second, first)])
    verdicts = (reply.value, swapped.value)
    return Comparison(
        first=first.id,
        second=second.id,
        verdicts=verdicts,
        # Judges prefer the first position (paper, section 4.4); only agreement in both orders counts.
        better=first.id if verdicts == ("A", "B") else second.id if verdicts == ("B", "A") else None,
        reason=reply.reason or swapped.reason,
        judge=judge.name_for(TEMPLATE),
        prompt_hash=prompt.hash,
        calls=reply.calls + swapped.calls,
    )


@cache
def _prompt(language: Language) -> PromptTemplate:
    prompt = read_prompt(FOLDER / f"{language}.txt", name=TEMPLATE)
    derived = reply_format(prompt.text, is_list=False, reminder=REMINDERS[language])
    structured = structured_template(prompt, STRUCTURED, language)
    return replace(prompt, reply_format=replace(derived, structured=structured))


def parse_better(text: str) -> PairwiseVerdict | None:
    """Parse the verdict `[[A]]`, `[[B]]` or `[[C]]` (a tie); None if there is none or it is unclear.

    >>> parse_better("A says [[A]] of itself, but B is right. Better: [[B]]"), parse_better("[[A]] or [[B]]")
    ('B', None)
    """
    verdict = find_verdict(text, _BETTER)
    return None if verdict is None else verdict.value


_BETTER: LabelFormat[PairwiseVerdict] = LabelFormat(
    parse=lambda label: _LABELS.get(_LABEL_PREFIX.sub("", normalize_label(label))),
    resembles=lambda label: _RESEMBLES_LABEL.search(normalize_label(label)) is not None,
    keys=("better", "verdict", "winner"),
)


def shorten_context(context: str, tokens: int) -> str:
    """Return the first and last halves of a document with more than `tokens` tokens; 0: a note that it is not shown."""
    if tokens == 0:
        return NOT_SHOWN
    spans = SimpleTokenizer().spans(context)
    return context if len(spans) <= tokens else keep_ends(context, spans, tokens, separator="\n…\n")


def longest_prompt(config: PairwiseConfig, *, response_tokens: int) -> int:
    """Estimate the tokens of the longest prompt with its reply, for responses of at most `response_tokens`."""
    literal = max(estimate_tokens(_prompt(language).text) for language in REMINDERS)
    return literal + config.context_tokens + 2 * response_tokens + MAX_TOKENS


def max_calls(
    config: SelectionConfig,
    items: Iterable[tuple[Example, Sequence[Response]]],
    *,
    context_tokens: int = DEFAULT_CONTEXT_TOKENS,
) -> tuple[int, int]:
    """Return the maximum number of judge calls and their estimated prompt tokens, without repeated attempts."""
    calls = tokens = 0
    for example, responses in items:
        texts = {response.text for response in sampling_order(config, responses)}
        if len(responses) < config.min_scored or len(texts) < 2:
            continue
        example_calls = 2 * max_comparisons(len(texts))
        prompt = _prompt(detect_language(example.query, *texts))
        prompt_tokens = sum(map(estimate_tokens, prompt.pieces[::2]))
        context = estimate_tokens(shorten_context(example.context, context_tokens) + example.query)
        calls += example_calls
        tokens += example_calls * (prompt_tokens + context + 2 * sum(map(estimate_tokens, texts)) // len(texts))
    return calls, tokens


async def best_and_worst(
    count: int, compare: Compare, choosable: Sequence[bool] | None = None
) -> tuple[int, int] | None:
    """Return the indices of the best and the worst of `count` responses; None if the best does not beat the worst.

    The first round compares neighbours. A knockout of the winners then finds the best, and one of the losers the worst.
    Finally the best is compared with the worst, so that a pair never rests on a chain of ties. This takes
    n / 2 + 2 (n / 2 - 1) + 1 comparisons: 14 for ten responses, while sorting takes about 25 and all pairs 45.

    A tie favours the earlier response as the best and the later one as the worst, as in pair selection. Only
    `choosable` responses (None: all) can be the best; such a response advances against one that is not choosable,
    whatever the comparison says.
    """
    if choosable is None:
        choosable = [True] * count
    if count < 2 or not any(choosable):
        return None
    matches = [(index, index + 1) for index in range(0, count - 1, 2)]
    signs = await gather(compare(*match) for match in matches)
    winners: list[int] = []
    losers: list[int] = []
    for (first, second), sign in zip(matches, signs, strict=True):
        better, worse = (first, second) if sign >= 0 else (second, first)
        winners += [index for index in (better, worse) if choosable[index]][:1]
        losers.append(worse)
    unmatched = [count - 1] if count % 2 else []
    best, worst = await gather(
        [
            _knockout([*winners, *(index for index in unmatched if choosable[index])], compare, better=True),
            _knockout([*losers, *unmatched], compare, better=False),
        ]
    )
    return (best, worst) if best != worst and await compare(best, worst) == 1 else None


async def _knockout(indices: Sequence[int], compare: Compare, *, better: bool) -> int:
    """Compare neighbours, round by round, until one response remains."""
    while len(indices) > 1:
        ordered = sorted(indices)
        # Sorted, so that ties still favour the earlier response in later rounds.
        matches = [(ordered[i], ordered[i + 1]) for i in range(0, len(ordered) - 1, 2)]
        signs = await gather(compare(*match) for match in matches)
        indices = [
            first if (sign >= 0) == better else second for (first, second), sign in zip(matches, signs, strict=True)
        ] + ([ordered[-1]] if len(ordered) % 2 else [])
    return indices[0]


def max_comparisons(count: int) -> int:
    """Return the maximum number of comparisons of `best_and_worst`.

    >>> [max_comparisons(n) for n in (1, 2, 3, 10)]
    [0, 2, 4, 14]
    """
    return count // 2 + 2 * (-(-count // 2) - 1) + 1 if count > 1 else 0
