"""Questions about a document, their gold answers, and the faulty answers that the SFT model is trained on.

    >>> ask([Fact("Mara Voss", "birthplace", "Kelden"), Fact("Ivo Lang", "building", "stone mill")])
    'Where was Mara Voss born, and what did Ivo Lang build?'

The faults imitate the imperfect model that LongReward improves: 15 % of the facts are dropped, 20 % have a wrong value,
and 30 % of the answers have one fabricated sentence. Dropping and padding are systematic, as in real models: facts late
in a question are dropped more often, and short answers are padded more often. So even the most likely answer of a model
trained on them is worse than the gold one.
"""

import random
from collections.abc import Sequence

from longreward.builtin.documents import THEMES, Document, sample_value
from longreward.builtin.grammar import FABRICATED_RELATIONS, RELATIONS, Fact

FACTS_PER_QUESTION = {1: 0.25, 2: 0.35, 3: 0.25, 4: 0.15}
DROP_RATES = (0.05, 0.12, 0.30, 0.55)
"""Probability that an answer drops the question's first, second, third, fourth fact; 0.15 of all facts."""
WRONG_RATE = 0.20
PADDING_RATES = (0.60, 0.30, 0.15, 0.10)
"""Probability of a fabricated sentence in an answer to a question for one, two, three, four facts; 0.31 of all."""


def sample_questions(rng: random.Random, document: Document, count: int) -> list[list[Fact]]:
    """Sample `count` different questions, each as the facts that it asks for, from different paragraphs.

    Raises ValueError if the document is too small.
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
            facts = [rng.choice(theme_facts) for theme_facts in candidates]
            if format_question(facts) not in seen:
                seen.add(format_question(facts))
                questions.append(facts)
    raise ValueError(f"document {document.id!r}: {len(document.facts)} facts are too few for {count} questions")


def format_question(facts: Sequence[Fact]) -> str:
    """Join the facts' questions into one sentence."""
    parts = [fact.question for fact in facts]
    joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + ", and " + parts[-1]
    return joined[0].upper() + joined[1:] + "?"


def gold_answer(facts: Sequence[Fact]) -> str:
    """Return one full sentence for each fact, in the question's order."""
    return " ".join(fact.sentence for fact in facts)


def faulty_answer(rng: random.Random, document: Document, facts: Sequence[Fact]) -> str:
    """Return the gold answer with the faults described above; never empty."""
    stated = [fact for index, fact in enumerate(facts) if rng.random() >= DROP_RATES[index]] or [facts[0]]
    stated = [with_wrong_value(rng, document, fact) if rng.random() < WRONG_RATE else fact for fact in stated]
    if rng.random() < PADDING_RATES[len(facts) - 1]:
        relation = rng.choice(FABRICATED_RELATIONS)
        stated.append(Fact(stated[-1].subject, relation, absent_value(rng, document, relation)))
    return gold_answer(stated)


def with_wrong_value(rng: random.Random, document: Document, fact: Fact) -> Fact:
    """Return the fact with another value."""
    return Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation))


def absent_value(rng: random.Random, document: Document, relation: str) -> str:
    """Return a value of the relation none of whose words is in the document, so that it is wrong."""
    words = set(document.text.replace(".", " ").replace(",", " ").split())
    while True:
        value = sample_value(rng, relation)
        if words.isdisjoint(value.split()):
            return value
