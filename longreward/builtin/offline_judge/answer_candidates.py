"""How far an answer gives what the evidence has for a sub-question.

Figures and names of the evidence that are of the type that the sub-question asks for are candidates. A candidate weighs
more, the closer the words of the question are to it, and rare words count more. An answer is worth its best candidate,
less if it lists further values beside it. Where the sub-question asks for no such value, the words of the sentences
around the question's words take the place of the candidates. For a yes or no, the evidence has to support what it
says about the question.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from longreward.builtin.offline_judge.lexical import META, Sentence, has_term, is_similar
from longreward.builtin.offline_judge.overlap import has_name, has_short_name, support_level
from longreward.builtin.offline_judge.sub_questions import VALUE_TYPES, SubQuestion, polar_claim

Evidence = tuple[Sentence, ...]
BASE_WEIGHT = 0.05  # of a candidate without any word of the question near it
NEIGHBOUR, SIMILAR = 0.4, 0.8  # weights of a word in an adjacent sentence, and of one with the same beginning
OTHER_TYPE = 0.4  # suitability of a person as a place, and of a place as a person
ABOUT_ANOTHER = 0.4  # factor of a value in a sentence that names others than the question
SHORT_NAME = 0.6  # suitability of a single name as a person: it may be a thing's
WRONG_VALUE = 0.3  # subtracted for another value than the evidence's best
DISTANCE = 8  # terms after which a word counts half
SUFFICIENT_TERMS = 2.5  # new words of average rarity that answer an open sub-question


@dataclass(frozen=True)
class Candidate:
    """A value of the evidence, with its weight relative to the best one's."""

    terms: frozenset[str]
    weight: float


def answer_share(sub_questions: Sequence[SubQuestion], evidence: Evidence, answer: Sequence[Sentence]) -> float:
    """Return from 0 to 1 how much of what the sub-questions ask for the answer has, by the weight of its candidates."""
    shares = {
        (index, 0): phrase_share(q, evidence, answer)
        if q.answer_type == "anything"
        else polar_share(q, evidence, answer)
        for index, q in enumerate(sub_questions)
        if q.answer_type in ("anything", "polar")
    }
    values = sorted(
        (
            (share, index, number, candidate)
            for index, sub_question in enumerate(sub_questions)
            if (index, 0) not in shares
            for candidate, share in _matched_candidates(sub_question, evidence, answer)
            for number in range(sub_question.count)
        ),
        key=lambda item: (-item[0], *item[1:3]),
    )
    used: set[frozenset[str]] = set()  # two sub-questions need two values
    for share, index, number, candidate in values:
        if (index, number) not in shares and candidate not in used:
            shares[index, number] = share
            used.add(candidate)
    requested = [(index, number) for index, q in enumerate(sub_questions) for number in range(q.count)]
    total = 0.0
    for index, number in requested:
        share, sub_question = shares.get((index, number), 0.0), sub_questions[index]
        if share < 0.5 and any(_count_values(sub_question, s) and sub_question.topic_words & s.terms for s in answer):
            share -= WRONG_VALUE
        total += share
    return max(0.0, total / len(requested))


def extract_relevance(sub_questions: Sequence[SubQuestion], evidence: Evidence, index: int) -> float:
    """Return the weight of the best candidate in a sentence; 0 if it is about another person than the question."""
    s = evidence[index]
    weights = [0.0]
    for sub_question in sub_questions:
        if sub_question.about.names and s.names and sub_question.about.name_terms.isdisjoint(s.terms):
            continue
        for _, position, suitability in _values_of_kind(sub_question, s):
            relevance = _relevance_at(sub_question, evidence, index, position)
            # A value of the first sentence may end a sentence of the chunk before.
            if relevance or sub_question.answer_type in VALUE_TYPES or index == 0:
                weights.append(suitability * (BASE_WEIGHT + relevance))
    return max(weights)


def phrase_share(sub_question: SubQuestion, evidence: Evidence, answer: Sequence[Sentence]) -> float:
    """Return from 0 to 1 how far one sentence of the answer has the new words of one that is close to the question."""
    rarity = _rarity(evidence)
    scored = _sentence_relevance(sub_question, evidence)
    best = max(scored, default=0.0)
    if not best:
        return 0.0
    unknown = math.log(1 + len(evidence))
    share = 0.0
    for s in answer:
        new = s.terms - sub_question.about.terms - META
        if not new:
            continue
        total = sum(rarity.get(term, unknown) for term in new)
        for relevance, e in zip(scored, evidence, strict=True):
            common = [term for term in new if has_term(e, term)] if relevance else []
            if not common:
                continue
            shared = sum(rarity.get(term, unknown) for term in common)
            offered = sum(sorted((rarity[term] for term in e.terms - sub_question.about.terms), reverse=True)[:3])
            recall = min(1.0, shared / max(min(offered, SUFFICIENT_TERMS * unknown / 2), 1e-9))
            share = max(share, (relevance / best) ** 2 * math.sqrt(shared / total * recall))
    return share


def polar_share(sub_question: SubQuestion, evidence: Evidence, answer: Sequence[Sentence]) -> float:
    """Return from 0 to 1 how far the evidence supports what the answer says to a question for yes or no."""
    claims = [polar_claim(sub_question.about, s) or s for s in answer]
    return max((support_level(c, evidence)[0] for c in claims if c.terms & sub_question.about.terms), default=0.0)


def _matched_candidates(
    sub_question: SubQuestion, evidence: Evidence, answer: Sequence[Sentence]
) -> Iterator[tuple[frozenset[str], float]]:
    """Yield the candidates that the answer has, with their weights; less beside further values in one sentence."""
    for candidate in _candidates(sub_question, evidence):
        shares = [
            candidate.weight / (1 + 0.5 * max(0, _count_values(sub_question, s) - sub_question.allowed))
            for s in answer
            if _has_candidate(s, candidate)
        ]
        if shares:
            yield candidate.terms, max(shares)


def _mentions(s: Sentence, name: frozenset[str]) -> bool:
    return has_name(name, s) or has_short_name(name, s)


def _count_values(sub_question: SubQuestion, s: Sentence) -> int:
    if sub_question.answer_type in ("anything", "polar"):
        return len(s.terms - sub_question.about.terms - META)
    if sub_question.answer_type in VALUE_TYPES:
        return len({value.term for value in sub_question.select_values(s)})
    return len({name for name in s.names if not name & sub_question.question_names})


def _has_candidate(s: Sentence, candidate: Candidate) -> bool:
    """Return whether the sentence has the value; a last name stands for a full name, if no other name precedes it."""
    if candidate.terms <= s.terms:
        return True
    return len(candidate.terms) > 1 and any(name < candidate.terms for name in s.names)


@lru_cache(maxsize=4096)
def _candidates(sub_question: SubQuestion, evidence: Evidence) -> tuple[Candidate, ...]:
    """Return the values of the evidence that could answer the sub-question; the best has the weight 1."""
    weights: dict[frozenset[str], float] = {}
    for index, s in enumerate(evidence):
        for terms, position, suitability in _values_of_kind(sub_question, s):
            weight = suitability * (BASE_WEIGHT + _relevance_at(sub_question, evidence, index, position))
            others = [name for name in s.names if name != terms]
            if sub_question.about.names and others and not any(_mentions(s, name) for name in sub_question.about.names):
                weight *= ABOUT_ANOTHER
            weights[terms] = max(weights.get(terms, 0.0), weight)
    best = max(weights.values(), default=1.0)
    return tuple(Candidate(terms, (weight / best) ** 2) for terms, weight in weights.items())


def _values_of_kind(sub_question: SubQuestion, s: Sentence) -> Iterator[tuple[frozenset[str], int, float]]:
    """Yield terms, position and suitability of the values that could answer the sub-question."""
    suitabilities = VALUE_TYPES.get(sub_question.answer_type)
    if suitabilities is not None:
        for value in sub_question.select_values(s):
            suitability = suitabilities[value.type]
            if sub_question.unit and sub_question.unit not in s.order[value.position + 1 : value.position + 3]:
                suitability *= 0.3
            yield frozenset({value.term}), value.position, suitability
        return
    for name in s.names:
        if not name & sub_question.question_names:
            position = next((i for i, term in enumerate(s.order) if term in name), 0)
            suitability = 1.0 if (name in s.places) == (sub_question.answer_type == "place") else OTHER_TYPE
            if sub_question.answer_type == "person" and len(name) == 1:
                suitability *= SHORT_NAME
            yield name, position, suitability


def _relevance_at(sub_question: SubQuestion, evidence: Evidence, index: int, position: int | None) -> float:
    """Return the share of the sub-question's words and names near a position, by their rarity and distance."""
    rarity = _rarity(evidence)
    unknown = math.log(1 + len(evidence))
    near = [(1.0, evidence[index], position)]
    near += [(NEIGHBOUR, evidence[i], None) for i in (index - 1, index + 1) if 0 <= i < len(evidence)]
    total = matched = 0.0
    for term in sub_question.topic_words:
        weight = rarity.get(term, unknown)
        total += weight
        matched += weight * max(factor * _nearest(s, term, at) for factor, s, at in near)
    for name in sub_question.about.names:
        weight = max(rarity.get(term, unknown) for term in name)
        total += weight
        matched += weight * max(factor * (_mentions(s, name)) for factor, s, _ in near)
    return matched / total if total else 0.0


def _nearest(s: Sentence, term: str, position: int | None) -> float:
    """Return 1 if the sentence has the term at the position, less if it is far or only similar, 0 if not at all."""
    factor = 1.0 if term in s.terms else SIMILAR
    matches = [i for i, other in enumerate(s.order) if other == term or (factor < 1 and is_similar(term, other))]
    if not matches:
        return 0.0
    if position is None:
        return factor
    return factor / (1 + min(abs(i - position) for i in matches) / DISTANCE)


@lru_cache(maxsize=4096)
def _sentence_relevance(sub_question: SubQuestion, evidence: Evidence) -> tuple[float, ...]:
    return tuple(_relevance_at(sub_question, evidence, index, None) for index in range(len(evidence)))


@lru_cache(maxsize=256)
def _rarity(evidence: Evidence) -> dict[str, float]:
    """Return the inverse document frequency of each term of the evidence, with sentences as documents."""
    counts = Counter(term for s in evidence for term in s.terms)
    return {term: math.log(1 + len(evidence) / (0.5 + count)) for term, count in counts.items()}
