"""Gold measures: what a response says, held against what the generator knows. No judge takes part.

    >>> row = GoldRow(1, "Mara Voss was born in Kelden.", (Fact("Mara Voss", "birthplace", "Kelden"),), (...), ())
    >>> measure("Mara Voss was born in Tarn.", row)
    GoldMeasures(recall=0.0, unsupported=1.0, exact=False, unasked=0.0)

A response is cut into clauses ("… was born in Kelden, and … built the stone mill"). A clause is true if it is one of
the document's facts, in the corpus's words or small rewordings of them (surname alone, passive voice, an opener of the
grammar), or a sentence of the document's scenery. Any content word that is left over makes it unsupported, so hedges
("Kelden or Tarn"), negations and additions gain nothing; nor does stating two values of one fact, or saying a true
thing twice.
"""

import re
from dataclasses import dataclass

from longreward.builtin.grammar import OPENERS, RELATIONS, TAILS, Fact


@dataclass(frozen=True)
class GoldRow:
    """The asked facts in the question's order, and all that is true in the document."""

    idx: int
    answer: str
    facts: tuple[Fact, ...]
    document_facts: tuple[Fact, ...]
    scenery: tuple[str, ...]


@dataclass(frozen=True)
class GoldMeasures:
    """Of one response.

    recall: share of the asked facts that it states, each without a second value beside the right one.
    unsupported: share of its distinct clauses that the document does not say; 1.0 for an empty response, so that
        silence never counts as faithful.
    exact: every asked fact and nothing unsupported.
    unasked: share of its distinct clauses that are true but were not asked for (they do not hinder `exact`).
    """

    recall: float
    unsupported: float
    exact: bool
    unasked: float


def measure_against_gold(response: str, row: GoldRow) -> GoldMeasures:
    """The gold measures of a response to the row's question."""
    claims = list(dict.fromkeys(_claims(response, row)))
    if not claims:
        return GoldMeasures(recall=0.0, unsupported=1.0, exact=False, unasked=0.0)
    values: dict[tuple[str, str], set[str]] = {}
    for claim in claims:
        if claim.key:
            values.setdefault(claim.key, set()).add(claim.value)
    true = {claim.fact for claim in claims if claim.fact}
    recalled = [fact for fact in row.facts if fact in true and len(values[fact.subject, fact.relation]) == 1]
    recall = len(recalled) / len(row.facts)
    unsupported = sum(not claim.supported for claim in claims) / len(claims)
    unasked = sum(claim.supported and claim.fact not in row.facts for claim in claims) / len(claims)
    return GoldMeasures(recall, unsupported, exact=recall == 1.0 and unsupported == 0.0, unasked=unasked)


@dataclass(frozen=True)
class _Claim:
    """What a clause says: of whom and what (`key`), which value, which fact of the document, and if it is true."""

    key: tuple[str, str] | None
    value: str
    fact: Fact | None
    supported: bool


def _claims(response: str, row: GoldRow) -> list[_Claim]:
    scenery = {" ".join(_words(sentence)) for sentence in row.scenery}
    claims = []
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", response.strip()):
        words = _words(sentence)
        if not words:
            continue
        if " ".join(words) in scenery:
            claims.append(_Claim(None, " ".join(words), None, supported=True))
            continue
        subject: str | None = None
        for clause in _clauses(_undecorated(words)):
            claim = _claim(clause, row, subject)
            subject = claim.key[0] if claim.key else subject
            claims.append(claim)
    return claims


def _claim(words: list[str], row: GoldRow, carried: str | None) -> _Claim:
    """One clause read: its subject is the member named in it, or else (`carried`) the clause's before it."""
    unread = _Claim(None, " ".join(words), None, supported=False)
    verbs = [place for place, word in enumerate(words) if word in _VERBS]
    if len(verbs) != 1:
        return unread
    relation = _VERBS[words[verbs[0]]]
    people = {fact.subject for fact in row.document_facts}
    named = [(place, name) for place, word in enumerate(words) for name in people if word == _words(name)[-1]]
    place, subject = named[0] if named else (-1, carried)
    if subject is None or _reversed(relation, words, verbs[0], place):
        return unread
    first = _words(subject)[0]
    span = range(place - 1, place + 1) if place > 0 and words[place - 1] == first else range(place, place + 1)
    plain = _FUNCTION_WORDS | set(_words(f"{RELATIONS[relation].cue} {RELATIONS[relation].unit}"))
    rest = [word for at, word in enumerate(words) if at not in span and word not in plain]
    value = " ".join(rest)
    for fact in row.document_facts:
        if fact.subject == subject and fact.relation == relation:
            told = " ".join(word for word in _words(fact.value) if word not in plain)
            if told == value:
                return _Claim((subject, relation), value, fact, supported=True)
    return _Claim((subject, relation), value, None, supported=False)


def _reversed(relation: str, words: list[str], verb: int, subject: int) -> bool:
    """Does the clause turn the relation round: "Mara Voss taught X" for "Mara Voss was taught by X"?"""
    if RELATIONS[relation].kind == "person" and " by" in RELATIONS[relation].cue:
        return (subject < verb) != ("by" in words[verb:])
    return False


def _clauses(words: list[str]) -> list[list[str]]:
    """Cut at "and" or "while" between two verbs of the grammar."""
    clauses: list[list[str]] = [[]]
    for place, word in enumerate(words):
        told = any(earlier in _VERBS for earlier in clauses[-1])
        to_tell = any(later in _VERBS for later in words[place:])
        if word in ("and", "while") and told and to_tell:
            clauses.append([])
        else:
            clauses[-1].append(word)
    return clauses


def _undecorated(words: list[str]) -> list[str]:
    """The words without the grammar's openers and tails, taken out as whole phrases only."""
    text = f" {' '.join(words)} "
    for phrase in _DECORATION:
        text = text.replace(f" {phrase} ", " ")
    return text.split()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['-]\w+)*", text.lower())


_VERBS = {relation.verb: relation.name for relation in RELATIONS.values()}
_DECORATION = sorted(
    {" ".join(_words(text)) for group in (OPENERS, TAILS) for choices in group.values() for text in choices}
)
_FUNCTION_WORDS = frozenset(
    _words("a an the was were had has is it that in at by of to from for year called named then and")
)
