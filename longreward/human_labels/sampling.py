"""Sample items to label from the files of a finished score stage.

Each kind of item is stratified by what makes agreement easy or hard, and each stratum has the same number of items as
far as it has candidates:

    support      the judge's level of support (1, 0.5, 0)
    preference   the aspect (four dimensions, overall) and the margin between the two responses
    score        the dimension and the judge's score (below 4, 4 to 7, 7 and more)

A random sample would hold few unsupported statements and few low scores, and kappa says little about a judge that has
one value nearly always. The price: agreement on the sample is not the agreement on all data.

The sample depends on the seed and the texts' ids alone: candidates are ordered by a hash, so that neither the order nor
the number of other candidates moves an item, and a larger sample contains the smaller one of the same seed.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path

from longreward.data.formats import example_from_row, scored_from_row
from longreward.errors import DataError
from longreward.human_labels.items import ASPECTS, KINDS, Aspect, Kind, ReviewItem
from longreward.records import DIMENSIONS, Evidence, Example, ScoredResponse
from longreward.utils.jsonl import read_records

MARGINS: tuple[tuple[str, float], ...] = (("margin 3 and more", 3.0), ("margin 1 to 3", 1.0), ("margin below 1", 0.0))
SCORES: tuple[tuple[str, float], ...] = (("score 7 and more", 7.0), ("score 4 to 7", 4.0), ("score below 4", 0.0))
SUPPORTS: Mapping[float, str] = {1.0: "judge: full", 0.5: "judge: partial", 0.0: "judge: none"}

STRATA: Mapping[Kind, Sequence[str]] = {
    "support": tuple(SUPPORTS.values()),
    "preference": tuple(name for name, _ in MARGINS),
    "score": tuple(name for name, _ in SCORES),
}


@dataclass(frozen=True)
class Candidate:
    """An item without its document, with the hash that orders it within its stratum."""

    order: str
    kind: Kind
    aspect: Aspect
    stratum: str
    responses: tuple[ScoredResponse, ...]
    verdict: float
    judge: str
    statement: str | None = None
    evidence: tuple[Evidence, ...] = ()


class Stratum:
    """The candidates of one stratum with the smallest hashes, at most one a prompt."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._heap: list[tuple[int, str, Candidate]] = []  # the largest hash first

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Add one prompt's candidates; the one with the smallest hash takes part."""
        ordered = sorted(candidates, key=lambda candidate: candidate.order)
        self.size += len(ordered)
        if not ordered:
            return
        first = ordered[0]
        heapq.heappush(self._heap, (-int(first.order, 16), first.order, first))
        if len(self._heap) > self.limit:
            heapq.heappop(self._heap)

    def candidates(self) -> list[Candidate]:
        """Return the candidates by hash."""
        return sorted((entry[2] for entry in self._heap), key=lambda candidate: candidate.order)


def sample_items(
    scored: Path, examples: Path, *, count: int, seed: int, kinds: Sequence[Kind] = KINDS
) -> list[ReviewItem]:
    """Return about `count` items, divided equally between the kinds, in an order that does not depend on the judge.

    Args:
        scored: `scored_responses.jsonl` of the score stage.
        examples: The prompts with their documents, `preference.jsonl` of the prepare stage.

    Raises:
        DataError: A file is invalid, holds no candidates, or lacks the example of a response.
    """
    per_kind = {kind: count // len(kinds) + (index < count % len(kinds)) for index, kind in enumerate(kinds)}
    strata: dict[tuple[Kind, Aspect, str], Stratum] = {}
    rows = read_records(scored, scored_from_row)
    for _, group in groupby(rows, key=lambda response: response.response.example_id):
        prompt = list(group)
        by_stratum: dict[tuple[Kind, Aspect, str], list[Candidate]] = {}
        for kind in kinds:
            for candidate in CANDIDATES[kind](prompt, seed):
                by_stratum.setdefault((kind, candidate.aspect, candidate.stratum), []).append(candidate)
        for key, candidates in by_stratum.items():
            strata.setdefault(key, Stratum(per_kind[key[0]])).add(candidates)
    selected = [
        (candidate, strata[key].size)
        for kind in kinds
        for key, number in _allocate(per_kind[kind], {k: s for k, s in strata.items() if k[0] == kind}).items()
        for candidate in strata[key].candidates()[:number]
    ]
    if not selected:
        raise DataError(f"{scored}: no response has a score or a statement to label; run the score stage first")
    return _with_documents(selected, examples, scored)


def _allocate(total: int, strata: Mapping[tuple[Kind, Aspect, str], Stratum]) -> Mapping[tuple[Kind, Aspect, str], int]:
    """Divide `total` equally; what a small stratum cannot give, the others share.

    Diagonals of the table of aspects and strata come first, so that fewer items than strata still have all of both.
    """

    def diagonal(key: tuple[Kind, Aspect, str]) -> tuple[int, int]:
        aspect, names = ASPECTS.index(key[1]), STRATA[key[0]]
        return (names.index(key[2]) - aspect) % len(names), aspect

    keys = sorted(strata, key=diagonal)
    numbers = dict.fromkeys(keys, 0)
    while total > 0:
        open_keys = [key for key in keys if numbers[key] < len(strata[key].candidates())]
        if not open_keys:
            break
        for key in open_keys[:total]:
            numbers[key] += 1
        total -= min(total, len(open_keys))
    return numbers


def _with_documents(selected: Sequence[tuple[Candidate, int]], examples: Path, scored: Path) -> list[ReviewItem]:
    needed = {candidate.responses[0].response.example_id for candidate, _ in selected}
    contexts: dict[str, Example] = {}
    for example in read_records(examples, example_from_row):
        if example.id in needed:
            contexts[example.id] = example
    if missing := sorted(needed - contexts.keys()):
        raise DataError(f"{scored} has responses to {missing[0]!r}, and {examples} has no such example")
    items = []
    for candidate, size in sorted(selected, key=lambda pair: pair[0].order):
        first = candidate.responses[0].response
        example = contexts[first.example_id]
        items.append(
            ReviewItem(
                id=f"{candidate.kind}-{candidate.order[:12]}",
                kind=candidate.kind,
                aspect=candidate.aspect,
                document_id=example.document_id,
                context=example.context,
                query=example.query,
                responses=tuple(scored.response.text for scored in candidate.responses),
                response_ids=tuple(scored.response.id for scored in candidate.responses),
                statement=candidate.statement,
                evidence=candidate.evidence,
                stratum=candidate.stratum,
                stratum_size=size,
                judge=candidate.judge,
                verdict=candidate.verdict,
            )
        )
    return items


def _support_candidates(prompt: Sequence[ScoredResponse], seed: int) -> Iterator[Candidate]:
    for scored in prompt:
        verdict = scored.verdicts["faithfulness"]
        for index, statement in enumerate(verdict.statements):
            if statement.support is not None and statement.evidence:
                yield Candidate(
                    order=_hash(seed, "support", scored.response.id, str(index)),
                    kind="support",
                    aspect="faithfulness",
                    stratum=SUPPORTS[statement.support],
                    responses=(scored,),
                    verdict=statement.support,
                    judge=verdict.judge,
                    statement=statement.text,
                    evidence=statement.evidence,
                )


def _score_candidates(prompt: Sequence[ScoredResponse], seed: int) -> Iterator[Candidate]:
    for scored in prompt:
        for dimension in DIMENSIONS:
            verdict = scored.verdicts[dimension]
            if verdict.score is not None:
                yield Candidate(
                    order=_hash(seed, "score", dimension, scored.response.id),
                    kind="score",
                    aspect=dimension,
                    stratum=_stratum(SCORES, verdict.score),
                    responses=(scored,),
                    verdict=verdict.score,
                    judge=verdict.judge,
                )


def _preference_candidates(prompt: Sequence[ScoredResponse], seed: int) -> Iterator[Candidate]:
    for pair in combinations(prompt, 2):
        if pair[0].response.text == pair[1].response.text:
            continue
        for aspect in ASPECTS:
            first, second = sorted(pair, key=lambda scored: scored.response.id)
            order = _hash(seed, "preference", aspect, first.response.id, second.response.id)
            # A and B are exchanged at random, so that their order does not depend on the judge.
            a, b = (first, second) if int(order[-1], 16) % 2 else (second, first)
            scores = [aspect_score(scored, aspect) for scored in (a, b)]
            if scores[0] is None or scores[1] is None:
                continue
            difference = scores[0] - scores[1]
            yield Candidate(
                order=order,
                kind="preference",
                aspect=aspect,
                stratum=_stratum(MARGINS, abs(difference)),
                responses=(a, b),
                verdict=sign(difference),
                judge=a.verdicts[DIMENSIONS[0] if aspect == "overall" else aspect].judge,
            )


CANDIDATES = {"support": _support_candidates, "score": _score_candidates, "preference": _preference_candidates}


def aspect_score(scored: ScoredResponse, aspect: Aspect) -> float | None:
    """Return the score of a dimension, or the reward."""
    return scored.reward if aspect == "overall" else scored.verdicts[aspect].score


def sign(difference: float) -> float:
    """Return 1, 0 or -1."""
    return float((difference > 0) - (difference < 0))


def _stratum(strata: Sequence[tuple[str, float]], value: float) -> str:
    return next(name for name, lowest in strata if value >= lowest)


def _hash(seed: int, *parts: str) -> str:
    return hashlib.sha256("\0".join([str(seed), *parts]).encode()).hexdigest()
