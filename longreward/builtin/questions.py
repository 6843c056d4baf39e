"""Questions about a document, their gold answers, and the faulty answers that the SFT model learns from.

    >>> ask([Fact("Mara Voss", "birthplace", "Kelden"), Fact("Ivo Lang", "building", "stone mill")])
    'Where was Mara Voss born, and what did Ivo Lang build?'

The faults are the paper's motive (answers of an imperfect model): of the facts 15 % are dropped and 20 % told with a
wrong value, and 30 % of the answers hold one sentence that nothing supports. Dropping and padding are systematic, as
they are with real models: the later a fact stands in a question the sooner it is forgotten, and the shorter an answer,
the likelier it is padded. So even the most likely answer of a model trained on them is worse than the gold one.
"""

import random
from collections.abc import Sequence

from longreward.builtin.documents import THEMES, Document, sample_value
from longreward.builtin.grammar import FABRICATED_RELATIONS, RELATIONS, Fact

FACTS_PER_QUESTION = {1: 0.25, 2: 0.35, 3: 0.25, 4: 0.15}
DROPPED = (0.05, 0.12, 0.30, 0.55)
"""Probability that an answer leaves out the question's first, second, third, fourth fact; 0.15 of all facts."""
WRONG = 0.20
PADDED = (0.60, 0.30, 0.15, 0.10)
"""Probability of an unsupported sentence in an answer to a question for one, two, three, four facts; 0.31 of all."""


def sample_questions(rng: random.Random, document: Document, count: int) -> list[list[Fact]]:
    """`count` different questions, each as the facts it asks for, in its order and from different paragraphs.

    Raises ValueError where the document is too small for so many.
    """
    questions: list[list[Fact]] = []
    seen: set[str] = set()
    for _ in range(100 * count):
        if len(questions) == count:
            return questions
        size = rng.choices(list(FACTS_PER_QUESTION), weights=list(FACTS_PER_QUESTION.values()))[0]
        themes = rng.sample(THEMES, size)
        candidates = [[fact for fact in document.facts if RELATIONS[fact.relation].theme == theme] for theme in themes]
        if all(candidates):
            facts = [rng.choice(told) for told in candidates]
            if format_question(facts) not in seen:
                seen.add(format_question(facts))
                questions.append(facts)
    raise ValueError(f"document {document.id!r}: {len(document.facts)} facts are too few for {count} questions")


def format_question(facts: Sequence[Fact]) -> str:
    """The facts' questions as one sentence."""
    parts = [fact.question for fact in facts]
    joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + ", and " + parts[-1]
    return joined[0].upper() + joined[1:] + "?"


def gold_answer(facts: Sequence[Fact]) -> str:
    """One full sentence for each fact, in the question's order."""
    return " ".join(fact.sentence for fact in facts)


def faulty_answer(rng: random.Random, document: Document, facts: Sequence[Fact]) -> str:
    """The gold answer with the faults described above; never empty."""
    told = [fact for place, fact in enumerate(facts) if rng.random() >= DROPPED[place]] or [facts[0]]
    told = [_wrong(rng, document, fact) if rng.random() < WRONG else fact for fact in told]
    if rng.random() < PADDED[len(facts) - 1]:
        relation = rng.choice(FABRICATED_RELATIONS)
        told.append(Fact(told[-1].subject, relation, absent_value(rng, document, relation)))
    return gold_answer(told)


def _wrong(rng: random.Random, document: Document, fact: Fact) -> Fact:
    return Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation))


def absent_value(rng: random.Random, document: Document, relation: str) -> str:
    """A fitting value none of whose words is in the document: it can only be wrong."""
    words = set(document.text.replace(".", " ").replace(",", " ").split())
    while True:
        value = sample_value(rng, relation)
        if words.isdisjoint(value.split()):
            return value
