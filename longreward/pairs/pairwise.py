"""The best and the worst of some, by comparing two at a time, in as few comparisons as can do.

    first round   0-1  2-3  4-5  6-7  8-9      winners and losers
    then          a knockout of the winners for the best, one of the losers for the worst, side by side
    at last       the best against the worst, so that a pair never rests on a chain of ties

For n that is n / 2 + 2 (n / 2 - 1) + 1 comparisons, 14 for ten responses, where a sort asks about 25 and all against
all 45. A knockout alone (n - 1 = 9) knows the best and not the worst.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from longreward.chat_model import estimate_tokens
from longreward.judge import Judge, ParsedReply
from longreward.judge.escaping import PromptEscaper, find_headings
from longreward.judge.prompt_template import JudgePrompt
from longreward.judge.reply_parsing import LabelFormat, find_verdict, normalize_label
from longreward.judge.truncation import truncated_verdict
from longreward.pairs.selection import (
    NoPair,
    NoPairReason,
    Outcome,
    PairConfig,
    can_be_chosen,
    pair_without_rewards,
    sampled_order,
)
from longreward.pairs.srm import keep_ends
from longreward.records import Example, PreferencePair, Response
from longreward.utils.concurrency import gather
from longreward.utils.language import Language, detect_language
from longreward.utils.token_spans import SimpleTokenizer

Sign = Literal[-1, 0, 1]
Compare = Callable[[int, int], Coroutine[Any, Any, Sign]]
"""1 where the first place is better, -1 where the second is, 0 where neither."""


def most_comparisons(count: int) -> int:
    """What `best_and_worst` asks of `count` at most.

    >>> [most_comparisons(n) for n in (1, 2, 3, 10)]
    [0, 2, 4, 14]
    """
    return count // 2 + 2 * (-(-count // 2) - 1) + 1 if count > 1 else 0


async def best_and_worst(count: int, compare: Compare, may_win: Sequence[bool] | None = None) -> tuple[int, int] | None:
    """Two places, the first of which was found better than the second; None where their comparison says otherwise.

    In a tie the earlier place goes on to be the best, and the later to be the worst, as elsewhere. Only what `may_win`
    (None: all) becomes the best: of a couple with one such place, that one goes on whatever the comparison says.
    """
    allowed = [True] * count if may_win is None else may_win
    if count < 2 or not any(allowed):
        return None
    couples = [(place, place + 1) for place in range(0, count - 1, 2)]
    signs = await gather(compare(*couple) for couple in couples)
    winners = []
    for (first, second), sign in zip(couples, signs, strict=True):
        if allowed[first] and allowed[second]:
            winners.append(first if sign >= 0 else second)
        elif allowed[first] or allowed[second]:
            winners.append(first if allowed[first] else second)
    losers = [second if sign >= 0 else first for (first, second), sign in zip(couples, signs, strict=True)]
    odd = [count - 1] if count % 2 else []
    best, worst = await gather(
        [
            _knockout([*winners, *(place for place in odd if allowed[place])], compare, better=True),
            _knockout([*losers, *odd], compare, better=False),
        ]
    )
    return (best, worst) if best != worst and await compare(best, worst) == 1 else None


async def _knockout(places: Sequence[int], compare: Compare, *, better: bool) -> int:
    """Rounds of neighbours, until one is left."""
    while len(places) > 1:
        ordered = sorted(places)
        couples = [(ordered[at], ordered[at + 1]) for at in range(0, len(ordered) - 1, 2)]
        signs = await gather(compare(*couple) for couple in couples)
        kept = [
            first if (sign >= 0) == better else second for (first, second), sign in zip(couples, signs, strict=True)
        ]
        places = kept + ([ordered[-1]] if len(ordered) % 2 else [])
    return places[0]


# The judge compares two responses at a time, in both orders (paper, section 4.4: "pairwise" judging).
#
# Of two it prefers one where both orders say so, else neither: a judge that likes whatever stands first decides
# nothing.
# Which two it is asked about is in `tournament.py`. Equal texts are one, so that what was sampled twice is asked once.


Verdict = Literal["A", "B", "C"]
TEMPLATE = "pairwise"
MAX_TOKENS = 512


@dataclass(frozen=True)
class Comparison:
    """Two responses of an example, and what the judge said with the first as A and with the second as A.

    `better` is the id of the one that both orders prefer, None: neither.
    """

    first: str
    second: str
    verdicts: tuple[Verdict | None, Verdict | None]
    better: str | None
    reason: str | None
    """Why a verdict cannot be read."""
    judge: str
    prompt_hash: str
    calls: int


@dataclass(frozen=True)
class ComparisonResult:
    """One example's outcome with all comparisons behind it."""

    example_id: str
    pair: PreferencePair | None
    without: NoPair | None
    comparisons: tuple[Comparison, ...]

    @property
    def outcome(self) -> Outcome:
        """The one that is there."""
        found = self.pair or self.without
        assert found is not None
        return found


async def pairwise_pair(
    judge: Judge, config: PairConfig, example: Example, responses: Iterable[Response]
) -> ComparisonResult:
    """The tournament of one example's responses."""
    sampled = sampled_order(config, responses)
    if len(sampled) < config.min_scored:
        reason: NoPairReason = "too few scored responses" if sampled else "no responses"
        return ComparisonResult(example.id, None, NoPair(example.id, reason, len(sampled), len(sampled), None), ())
    different = list({one.text: one for one in reversed(sampled)}.values())[::-1]
    # A text may have been sampled whole and, at the limit, without its end: the whole one stands for both.
    whole = {one.text: one for one in reversed(sampled) if not one.truncated}
    different = [whole.get(one.text, one) for one in different]
    may_win = can_be_chosen(config, different)
    if not any(may_win):
        cut = NoPair(example.id, "all responses are truncated", len(sampled), len(sampled), None)
        return ComparisonResult(example.id, None, cut, ())
    if len(different) < 2:
        same = NoPair(example.id, "all responses are the same", len(sampled), len(sampled), None)
        return ComparisonResult(example.id, None, same, ())
    shown = await asyncio.to_thread(shorten_context, example.context, config.pairwise.context_tokens)
    made: dict[tuple[int, int], Comparison] = {}

    async def compare(one: int, other: int) -> Sign:
        first, second = min(one, other), max(one, other)
        if (first, second) not in made:
            made[first, second] = await _compared(judge, shown, different[first], different[second])
        better = made[first, second].better
        if better is None:
            return 0
        return 1 if better == different[one].id else -1

    two = await best_and_worst(len(different), compare, may_win)
    comparisons = tuple(made.values())
    if two is None:
        tie = NoPair(example.id, "best and worst tie", len(sampled), len(sampled), None)
        return ComparisonResult(example.id, None, tie, comparisons)
    pair = pair_without_rewards(example, different[two[0]], different[two[1]], method="pairwise")
    return ComparisonResult(example.id, pair, None, comparisons)


def max_calls(config: PairConfig, items: Iterable[tuple[Example, Sequence[Response]]]) -> tuple[int, int]:
    """Questions and their tokens, as estimated, that the comparisons need at most; re-asks are not counted."""
    calls = tokens = 0
    for example, responses in items:
        texts = {one.text for one in sampled_order(config, responses)}
        if len(responses) < config.min_scored or len(texts) < 2:
            continue
        asked = 2 * most_comparisons(len(texts))
        prompt = _prompt(detect_language(example.query, *texts))
        own = sum(map(estimate_tokens, prompt.pieces[::2]))
        shown = estimate_tokens(shorten_context(example.context, config.pairwise.context_tokens) + example.query)
        calls += asked
        tokens += asked * (own + shown + 2 * sum(map(estimate_tokens, texts)) // len(texts))
    return calls, tokens


def shorten_context(context: str, tokens: int) -> str:
    """The document's first and last halves, where it has more `tokens`; nothing of it where none are to be shown."""
    spans = SimpleTokenizer().spans(context) if tokens else []
    if len(spans) <= tokens:
        return context if tokens else NOT_SHOWN
    return keep_ends(context, spans, tokens, between="\n…\n")


def parse_better(text: str) -> Verdict | None:
    """The verdict `[[A]]`, `[[B]]` or `[[C]]`; a tie is C. None where there is none or it is not clear.

    >>> parse_better("A says [[A]] of itself, but B is right. Better: [[B]]"), parse_better("[[A]] or [[B]]")
    ('B', None)
    """
    verdict = find_verdict(text, _BETTER)
    return None if verdict is None else verdict.value


def _better(label: str) -> Verdict | None:
    return _BETTER_LABELS.get(_ANSWER.sub("", normalize_label(label)))


def _resembles_better(label: str) -> bool:
    return _LIKE_BETTER.search(normalize_label(label)) is not None


async def _compared(judge: Judge, context: str, first: Response, second: Response) -> Comparison:
    prompt = _prompt(detect_language(first.query, first.text, second.text))

    async def ask(a: Response, b: Response) -> ParsedReply[Verdict]:
        slots = {"context": context, "question": first.query, "answer_a": a.text, "answer_b": b.text}
        question = await asyncio.to_thread(prompt.ask, slots, system="", max_tokens=MAX_TOKENS)
        return await judge.query(question, parse_better, parse_truncated=truncated_verdict(parse_better))

    one, other = await gather([ask(first, second), ask(second, first)])
    said = (one.value, other.value)
    better = first.id if said == ("A", "B") else second.id if said == ("B", "A") else None
    return Comparison(
        first.id,
        second.id,
        said,
        better,
        one.reason or other.reason,
        judge.name_for(TEMPLATE),
        prompt.hash,
        one.calls + other.calls,
    )


@cache
def _prompt(language: Language) -> JudgePrompt:
    text = (FOLDER / f"{language}.txt").read_text(encoding="utf-8")
    pieces = tuple(_SLOT.split(text))
    marks = PromptEscaper(find_headings(pieces[::2]), [])
    return JudgePrompt(TEMPLATE, pieces, hashlib.sha256(text.encode()).hexdigest(), official=False, marks=marks)


FOLDER = Path(__file__).parent / "prompt_files"
NOT_SHOWN = "(not shown)"
_SLOT = re.compile(r"<<(\w+)>>")
_BETTER_LABELS: dict[str, Verdict] = {"a": "A", "b": "B", "c": "C", "tie": "C", "neither": "C", "平局": "C"}
_ANSWER = re.compile(r"^(?:answer|assistant|response|回答|答案) ?")
_LIKE_BETTER = re.compile(r"^[a-z]$|\b(?:tie|both|neither|better|worse)\b|^a\W+b|^b\W+a|或|好")
_BETTER: LabelFormat[Verdict] = LabelFormat(_better, _resembles_better, ("better", "verdict", "winner"))
