"""Gold measures: compare a response with the facts of the generator, without a judge.

    >>> row = GoldRow(1, "Mara Voss was born in Kelden.", (Fact("Mara Voss", "birthplace", "Kelden"),), (...), ())
    >>> measure("Mara Voss was born in Tarn.", row)
    GoldMeasures(recall=0.0, unsupported=1.0, exact=False, unasked=0.0)

A response is split into clauses ("… was born in Kelden, and … built the stone mill"). A clause is true if it is one of
the document's facts, in the corpus's words or small variations (surname only, passive voice, an opener of the grammar),
or a sentence of the document's scenery. Any other content word makes it unsupported, so that hedges ("Kelden or Tarn"),
negations and additions gain nothing. Neither do two values of one fact, nor a true clause that is repeated.
"""

import re
from dataclasses import dataclass

from longreward.builtin.grammar import OPENERS, RELATIONS, TAILS, Fact


@dataclass(frozen=True)
class GoldRow:
    """The true answer to a question: its facts in the question's order, and all that is true in the document."""

    idx: int
    answer: str
    facts: tuple[Fact, ...]
    document_facts: tuple[Fact, ...]
    scenery: tuple[str, ...]


@dataclass(frozen=True)
class GoldMeasures:
    """The measures of one response.

    recall: share of the question's facts that it states, each without a second value.
    unsupported: share of its distinct clauses that the document does not state; 1.0 for an empty response, so that
        an empty response does not count as faithful.
    exact: it states every fact of the question and nothing unsupported.
    unasked: share of its distinct clauses that are true but not in the question's facts; these do not affect `exact`.
    """

    recall: float
    unsupported: float
    exact: bool
    unasked: float


def measure_against_gold(response: str, row: GoldRow) -> GoldMeasures:
    """Return the gold measures of a response to the row's question."""
    claims = list(dict.fromkeys(_parse_claims(response, row)))
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
    """A parsed clause: subject and relation (`key`), its value, and the fact of the document that it states."""

    key: tuple[str, str] | None
    value: str
    fact: Fact | None
    supported: bool


def _parse_claims(response: str, row: GoldRow) -> list[_Claim]:
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
        text = f" {' '.join(words)} "
        for phrase in _DECORATION:  # the grammar's openers and tails, only as whole phrases
            text = text.replace(f" {phrase} ", " ")
        for clause in _split_clauses(text.split()):
            claim = _parse_claim(clause, row, subject)
            subject = claim.key[0] if claim.key else subject
            claims.append(claim)
    return claims


def _parse_claim(words: list[str], row: GoldRow, previous: str | None) -> _Claim:
    """Parse one clause; without a name, its subject is that of the `previous` clause."""
    unparsed = _Claim(None, " ".join(words), None, supported=False)
    verbs = [index for index, word in enumerate(words) if word in _VERBS]
    if len(verbs) != 1:
        return unparsed
    relation = _VERBS[words[verbs[0]]]
    people = {fact.subject for fact in row.document_facts}
    mentions = [(index, name) for index, word in enumerate(words) for name in people if word == _words(name)[-1]]
    position, subject = mentions[0] if mentions else (-1, previous)
    if subject is None:
        return unparsed
    # "Mara Voss taught X" reverses "Mara Voss was taught by X".
    has_passive_cue = RELATIONS[relation].kind == "person" and " by" in RELATIONS[relation].cue
    if has_passive_cue and (position < verbs[0]) != ("by" in words[verbs[0] :]):
        return unparsed
    first_name = _words(subject)[0]
    start = position - 1 if position > 0 and words[position - 1] == first_name else position
    function_words = _FUNCTION_WORDS | set(_words(f"{RELATIONS[relation].cue} {RELATIONS[relation].unit}"))
    content = words[: max(start, 0)] + words[position + 1 :]
    value = " ".join(word for word in content if word not in function_words)
    for fact in row.document_facts:
        true_value = " ".join(word for word in _words(fact.value) if word not in function_words)
        if (fact.subject, fact.relation, true_value) == (subject, relation, value):
            return _Claim((subject, relation), value, fact, supported=True)
    return _Claim((subject, relation), value, None, supported=False)


def _split_clauses(words: list[str]) -> list[list[str]]:
    """Split at "and" or "while" between two verbs of the grammar."""
    clauses: list[list[str]] = [[]]
    for index, word in enumerate(words):
        verb_before = any(earlier in _VERBS for earlier in clauses[-1])
        verb_after = any(later in _VERBS for later in words[index:])
        if word in ("and", "while") and verb_before and verb_after:
            clauses.append([])
        else:
            clauses[-1].append(word)
    return clauses


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['-]\w+)*", text.lower())


_VERBS = {relation.verb: relation.name for relation in RELATIONS.values()}
_DECORATION = sorted(
    {" ".join(_words(text)) for group in (OPENERS, TAILS) for choices in group.values() for text in choices}
)
_FUNCTION_WORDS = frozenset(
    _words("a an the was were had has is it that in at by of to from for year called named then and")
)
