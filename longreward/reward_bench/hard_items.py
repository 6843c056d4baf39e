"""Labelled items that shared words alone do not settle: six registers in one context, faults that look right.

another's value   a value that the document gives, of somebody else
another's fact    true, of the same kind, about somebody who was not asked for
padded, less      a fact dropped, three true sentences about others added: longer than the right answer
padded, wrong     another's value, and so padded
bare              the values alone, which are right, against full sentences with another's value
partial           right as far as it goes, against all that was asked with another's value

>>> item = next(hard_pairs(1))
>>> item.group, item.responses
("another's value", ('Thea Penrose drew 178 maps. …', 'Thea Penrose drew 78 maps. …'))
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from longreward.builtin.documents import Document, make_document
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import absent_value, ask, draw_questions, gold_answer
from longreward.reward_bench.items import Item

REGISTERS = 6
"""In one context; about 3,000 words in all."""


def hard_pairs(cases: int) -> Iterator[Item]:
    """A pair for each kind and case; the same on every machine."""
    for case in map(_make_case, range(cases)):
        for kind, (better, worse) in case.pairs.items():
            yield Item(f"{case.id}, {kind}", case.context, case.query, (better, worse), (1.0, 0.0), kind, case.id)


def hard_lists(cases: int) -> Iterator[Item]:
    """A list of five for each case: right, right and padded, a fact less, another's value, all wrong."""
    for case in map(_make_case, range(cases)):
        labels = tuple(float(len(case.listed) - place) for place in range(1, len(case.listed) + 1))
        yield Item(f"{case.id}, list", case.context, case.query, case.listed, labels, "hard list", case.id)


@dataclass(frozen=True)
class _Case:
    id: str
    context: str
    query: str
    pairs: dict[str, tuple[str, str]]
    listed: tuple[str, ...]


def _make_case(number: int) -> _Case:
    name = f"reward-bench-{number}"
    rng = random.Random(f"longreward {name}")
    document = make_document(name, relations_per_theme=3)
    facts, other = _question(rng, document, size=2 + number % 2)
    mistaken = Fact(facts[0].subject, facts[0].relation, other.value)
    asides = [fact for fact in document.facts if fact.subject not in {each.subject for each in (*facts, other)}]
    padding = gold_answer(rng.sample(asides, 3))
    gold, less, wrong = gold_answer(facts), gold_answer(facts[:-1]), gold_answer([mistaken, *facts[1:]])
    astray = [Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation)) for fact in facts]
    return _Case(
        id=name,
        context=_among_others(rng, document),
        query=ask(facts),
        pairs={
            "another's value": (gold, wrong),
            "another's fact": (gold, gold_answer([other, *facts[1:]])),
            "padded, less": (gold, f"{less} {padding}"),
            "padded, wrong": (gold, f"{wrong} {padding}"),
            "bare": (f"{', '.join(fact.value for fact in facts)}.", wrong),
            "partial": (less, wrong),
        },
        listed=(gold, f"{gold} {padding}", less, wrong, gold_answer(astray)),
    )


def _question(rng: random.Random, document: Document, *, size: int) -> tuple[list[Fact], Fact]:
    """The facts asked for, and one of the first one's kind about somebody else."""
    for facts in draw_questions(rng, document, 30):
        asked = {fact.subject for fact in facts}
        like = [fact for fact in document.facts if fact.relation == facts[0].relation and fact.subject not in asked]
        if len(facts) == size and like:
            return facts, rng.choice(like)
    raise AssertionError(f"{document.id}: none of its questions has such a fact")  # held by a test over 200 cases


def _among_others(rng: random.Random, document: Document) -> str:
    """The register somewhere among others, in none of which one of its people's names stands."""
    names = {name for person in document.people for name in person.split()[1:]}
    texts, number = [document.text], 0
    while len(texts) < REGISTERS:
        other = make_document(f"{document.id} beside {number}")
        number += 1
        if names.isdisjoint(other.text.replace(".", " ").replace(",", " ").split()):
            texts.append(other.text)
    rng.shuffle(texts)
    return "\n\n".join(texts)
