"""Relations between sentences by their common terms: support, relevance, coverage and contradiction."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from longreward.builtin.offline_judge.lexical import (
    META,
    Sentence,
    has_term,
    is_cjk,
    parse_sentence,
    polarity_differs,
    split_sentences,
    stem,
)
from longreward.builtin.offline_judge.sub_questions import split_question, with_names

Level = float  # 1, 0.5 or 0
SUPPORT_LABELS: Mapping[Level, str] = {1.0: "Fully supported", 0.5: "Partially supported", 0.0: "No support"}
PARAPHRASE_SHARE = 0.34


def support_level(claim: Sentence, evidence: tuple[Sentence, ...]) -> tuple[Level, Sentence | None]:
    """Return how far one sentence of the evidence supports the claim, or one each of its clauses; and the closest."""
    ranked = [(_support_at(claim, evidence, i), len(claim.terms & e.terms), -i) for i, e in enumerate(evidence)]
    if not ranked:
        return 0.0, None
    best, _, negative = max(ranked)
    clause_list = clauses(claim)
    if best < 1 and len(clause_list) > 1:
        levels = [max(sentence_support(clause, e) for e in evidence) for clause in clause_list]
        best = 1.0 if min(levels) == 1 else 0.5 if max(levels) > 0 else best
    return best, evidence[-negative]


def _support_at(claim: Sentence, evidence: tuple[Sentence, ...], index: int) -> Level:
    """Return the support by a sentence; a third of the words may be in the sentences beside it."""
    e = evidence[index]
    level = sentence_support(claim, e)
    words = claim.words - META
    if level or not words or len(claim.numbers) + len(claim.names) < 2 or polarity_differs(claim, e):
        return level
    if not _has_values(claim, e):
        return 0.0
    near = evidence[max(0, index - 1) : index + 2]
    shared = sum(any(has_term(s, word) for s in near) for word in words)
    return 0.5 if shared >= PARAPHRASE_SHARE * len(words) else 0.0


def sentence_support(claim: Sentence, evidence: Sentence) -> Level:
    """Return 1 if the evidence says all that the claim does, 0.5 if a minor part is missing, otherwise 0.

    It is 0 if the sentence lacks a number or name of the claim, even if another sentence has it, or negates the claim.
    """
    if not claim.terms or not _has_values(claim, evidence):
        return 0.0
    words = claim.words
    if polarity_differs(claim, evidence):
        return 0.0
    missing = len(words - evidence.terms)
    cjk = sum(map(is_cjk, words))  # bigrams overlap: one wrong word changes two
    if missing <= (len(words) - cjk / 2) // 10:
        return 1.0
    values = 2 * (len(claim.numbers) + max(0, len(claim.names) - 1))  # the first name is the subject, not a value
    # In a short claim any word may be the value; a long one is rarely repeated literally.
    minor_share = 0.5 if len(words) - cjk / 2 >= 6 else 0.25 if cjk else 0.3
    return 0.5 if missing < minor_share * (len(words) + values) else 0.0


def _has_values(claim: Sentence, evidence: Sentence) -> bool:
    """Return whether the evidence has the numbers and names of the claim, in the same roles."""
    if claim.numbers - evidence.terms:
        return False
    subject = claim.names[:1]
    named = all(
        has_name(name, evidence) or (name in subject and has_short_name(name, evidence)) for name in claim.names
    )
    return named and not _is_reversed(claim, evidence)


def has_name(name: frozenset[str], s: Sentence) -> bool:
    """Return whether the sentence has the whole name, as a name or as adjacent words."""
    if not name <= s.terms:
        return False
    if len(name) == 1 or any(name <= other for other in s.names):
        return True
    return any(set(s.order[i : i + len(name)]) == name for i in range(len(s.order)))


def has_short_name(name: frozenset[str], s: Sentence) -> bool:
    """Return whether the sentence has a shorter form of the name: "Voss" for "Mara Voss"."""
    return any(other <= name for other in s.names)


def _is_reversed(claim: Sentence, evidence: Sentence) -> bool:
    """Return whether a short claim about two people swaps them: who succeeded whom?"""
    if len(claim.names) != 2 or len(evidence.names) != 2 or len(claim.words) > 2 or claim.words & _MUTUAL:
        return False
    positions = [next((i for i, other in enumerate(evidence.names) if name <= other), -1) for name in claim.names]
    if -1 in positions or positions[0] == positions[1]:
        return False
    return (positions[0] < positions[1]) != (claim.passive == evidence.passive)


_MUTUAL = frozenset(map(stem, ("married", "met", "befriended", "divorced")))


def clauses(s: Sentence) -> tuple[Sentence, ...]:
    """Return the clauses of a sentence, each with the subject's name; the sentence itself if it has only one."""
    texts = [text for text in _CLAUSE.split(s.text) if text.strip()]
    if len(texts) < 2:
        return (s,)
    clause_list = [parse_sentence(text.strip()) for text in texts]
    if any(len(clause.terms) < 2 for clause in clause_list):
        return (s,)
    subject = clause_list[0].names[:1]
    return tuple(clause if _opens_with_name(clause) else with_names(clause, subject) for clause in clause_list)


def relevance(question: Sentence, s: Sentence) -> float:
    """Return the highest share of a sub-question that the sentence has; 0 if it is not relevant."""
    return max(_question_relevance(q.about, s) for q in split_question(question.text))


def coverage(sentences: list[Sentence], point: Sentence, question: Sentence) -> float:
    """Return from 0 to 1 how much of what the point adds to the question is in one sentence of the answer.

    A point of many words may be spread over the whole answer.
    """
    new = point.terms - question.terms
    weights = {term: 3 if term in point.numbers | point.name_terms else 1 for term in new}
    total = sum(weights.values())
    candidates = [s.terms for s in sentences]
    if len(new) >= 8:
        candidates.append(frozenset().union(*candidates))
    shares = [0.8 * sum(weights[term] for term in terms & new) / total for terms in candidates if terms & new]
    levels = [sentence_support(s, point) for s in sentences if s.terms & new]
    return max([0.0, *shares, *levels])


def is_contradiction(a: Sentence, b: Sentence) -> bool:
    """Return whether two sentences differ in a number or name on one subject, or one negates the other."""
    if not a.words or not b.words or (a.order, a.negated) == (b.order, b.negated):
        return False
    if a.names[:1] != b.names[:1] or len(a.words & b.words) < 0.6 * len(a.words | b.words):
        return False
    if polarity_differs(a, b):
        return a.numbers == b.numbers and a.names == b.names
    return _disjoint(a.numbers, b.numbers) or (
        a.numbers == b.numbers and _disjoint(frozenset(a.names[1:]), frozenset(b.names[1:]))
    )


@lru_cache(maxsize=512)
def evidence_sentences(context: str, *, joined: bool = False) -> tuple[Sentence, ...]:
    """Return the sentences of labelled passages, without the labels; he and she get the name of the sentence before.

    Passages may be cut within a sentence: with `joined`, the end of one and the start of the next are also joined.
    """
    evidence: list[Sentence] = []
    for passage in _LABEL.split(context):
        sentences = split_sentences(passage)
        if joined and sentences and evidence and not evidence[-1].finished:
            end, start = evidence[-1].text, sentences[0].text
            evidence += [parse_sentence(f"{end} {start}"), parse_sentence(end + start)]
        subject: tuple[frozenset[str], ...] = ()
        for s in sentences:
            if subject and _PRONOUN.match(s.text):
                evidence.append(with_names(s, subject))
                continue
            evidence.append(s)
            # A Chinese sentence usually starts with its subject, in two characters.
            subject = s.names[:1] or ((frozenset(s.order[:1]),) if s.order and is_cjk(s.order[0]) else ())
    return tuple(s for s in evidence if s.terms and not _NOTHING.search(s.text))


@lru_cache(maxsize=512)
def evidence_clauses(context: str, *, joined: bool = False) -> tuple[Sentence, ...]:
    """Return the evidence with sentences about several people cut into clauses, so that facts are not mixed up."""
    return tuple(clause for s in evidence_sentences(context, joined=joined) for clause in _clauses_by_person(s))


def _question_relevance(about: Sentence, s: Sentence) -> float:
    if not about.terms:  # "Summarise the document": any statement does
        return 1.0 if len(s.terms) > 3 else 0.0
    words = about.terms - about.name_terms
    shared = len(words & s.terms)
    names = sum(has_name(name, s) or has_short_name(name, s) for name in about.names)
    total = len(about.names) + len(words)
    if names:
        return (names + shared) / total if shared or not words else 0.0
    if about.names and s.names and shared < 3:  # about somebody else
        return 0.0
    needed = 0.6 * len(words) if about.names else min(3, 0.3 * len(words))
    return shared / total if shared and shared >= needed else 0.0


@lru_cache(maxsize=16384)
def _clauses_by_person(s: Sentence) -> tuple[Sentence, ...]:
    if len(s.names) < 2:
        return (s,)
    clause_list = clauses(s)
    first, *further = clause_list
    others = [clause for clause in further if _opens_with_name(clause) and clause.names[:1] != first.names[:1]]
    return clause_list if others else (s,)


def _opens_with_name(s: Sentence) -> bool:
    return bool(s.order) and s.order[0] in s.name_terms


def _disjoint(a: frozenset[Any], b: frozenset[Any]) -> bool:
    return bool(a) and bool(b) and not a & b


_LABEL = re.compile(r"^[ \t]*[\[【][^\[\]【】\n]{1,80}[\]】][ \t]*$", re.M)
_NOTHING = re.compile(r"^no relevant information\W*$|^没有相关信息\W*$", re.I)
_PRONOUN = re.compile(r"(?:he|she|his|her)\b|[他她]", re.I)
_CLAUSE = re.compile(r"[;；，]|,? (?:and|but|while|whereas) |, (?:which|who|where|then) ")
