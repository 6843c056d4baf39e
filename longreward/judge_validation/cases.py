"""Questions with a known right answer, and that answer damaged in known ways.

    >>> case = make_case(0)
    >>> case.gold, case.damaged["value changed"]
    ('Mina Brandt was born in Foxley. …', 'Mina Brandt was born in Tarn. …')

Documents, facts and questions come from the generator of the built-in corpus, with seeds that the corpus does not use.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from longreward.builtin.documents import Document, make_document
from longreward.builtin.grammar import FABRICATED_RELATIONS, RELATIONS, Fact
from longreward.builtin.questions import absent_value, format_question, gold_answer, sample_questions
from longreward.records import Dimension

DETECTING_DIMENSIONS: Mapping[str, tuple[Dimension, ...]] = {
    "fact dropped": ("helpfulness", "completeness"),
    "value changed": ("faithfulness",),
    "unsupported sentence": ("faithfulness",),
    "contradiction": ("logicality",),
    "other question": ("helpfulness", "completeness"),
    "empty": ("helpfulness", "completeness"),
    "refusal": ("helpfulness", "completeness"),
}
"""The dimensions that must score each kind of damage lower than the right answer."""


@dataclass(frozen=True)
class RewardQuery:
    """One dimension of one response to a query about a document."""

    context: str
    query: str
    response: str
    dimension: Dimension


@dataclass(frozen=True)
class QueryPair:
    """Two texts in one dimension: right and damaged answer, or without and with an attack."""

    name: str
    """The kind of damage, or the attack."""
    case: str
    first: RewardQuery
    second: RewardQuery


@dataclass(frozen=True)
class Case:
    """A question about a document with its right answer, damaged answers by kind, and a bad answer."""

    id: str
    context: str
    query: str
    gold: str
    damaged: Mapping[str, str]
    bad: str
    """About another person, unsupported by the document, and self-contradictory."""
    aside: str
    """A true sentence of the document that is irrelevant to the question."""


def make_case(number: int) -> Case:
    """Return the case with that number, the same on every machine; it asks for two or three facts."""
    name = f"judge-check-{number}"
    document = make_document(name, people=4, facts_per_person=5, scenes=1)
    rng = random.Random(f"longreward {name}")
    # Even numbers ask for two facts, odd ones for three.
    facts = next(facts for facts in sample_questions(rng, document, 12) if len(facts) == 2 + number % 2)
    # Facts with another subject and another relation than the question.
    people, relations = {fact.subject for fact in facts}, {fact.relation for fact in facts}
    unrelated = [fact for fact in document.facts if fact.subject not in people and fact.relation not in relations]
    # No document states a fabricated relation, so the added sentence is unsupported for certain.
    relation = rng.choice(FABRICATED_RELATIONS)
    unsupported = Fact(facts[0].subject, relation, absent_value(rng, document, relation))
    bad_fact = _with_wrong_value(rng, document, unrelated[0])
    return Case(
        id=name,
        context=document.text,
        query=format_question(facts),
        gold=gold_answer(facts),
        damaged={
            "fact dropped": gold_answer(facts[:-1]),
            "value changed": gold_answer([_with_wrong_value(rng, document, facts[0]), *facts[1:]]),
            "unsupported sentence": gold_answer([*facts, unsupported]),
            "contradiction": f"{gold_answer(facts)} {_negation(facts[0])}",
            "other question": gold_answer(unrelated[: len(facts)]),
            "empty": "",
            "refusal": "I am sorry, but the document does not say anything about that.",
        },
        bad=f"{bad_fact.sentence} {_negation(bad_fact)}",
        aside=document.scenery[0],
    )


def damage_pairs(case: Case) -> Iterator[QueryPair]:
    """Yield the right answer and each damaged one, in the dimensions that must detect the damage."""
    for kind, dimensions in DETECTING_DIMENSIONS.items():
        for dimension in dimensions:
            gold, damaged = (
                RewardQuery(case.context, case.query, text, dimension) for text in (case.gold, case.damaged[kind])
            )
            yield QueryPair(kind, case.id, gold, damaged)


def _negation(fact: Fact) -> str:
    """Return the negation: "Mara Voss was not born in Kelden.", "Ivo Lang never built the stone mill."."""
    cue = RELATIONS[fact.relation].cue
    negated = cue.replace("was ", "was not ", 1) if cue.startswith("was ") else f"never {cue}"
    return fact.sentence.replace(f"{fact.subject} {cue}", f"{fact.subject} {negated}", 1)


def _with_wrong_value(rng: random.Random, document: Document, fact: Fact) -> Fact:
    return Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation))
