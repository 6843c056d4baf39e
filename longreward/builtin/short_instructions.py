"""Short instructions with a right and a wrong answer, without any document, in the words of the tiny base.

    >>> item = short_items(6)[5]
    >>> item.kind, item.query, item.answer, item.wrong
    ('first', 'Which is first in the list: philosophy, statue, astronomy, bronze?', 'philosophy.', 'bronze.')

They stand for what a model is asked beside long documents. Every other one asks for a fact of a few notes that come
with the question, which the tiny base can learn; the rest ask for a fact within one sentence, the first or the last of
a list, a list in another form, the larger of two figures, how many words there are, most of which it cannot. The n-th
one is the same on every machine. Those held out share no question with those for training.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from longreward.builtin.documents import sample_value
from longreward.builtin.grammar import QUESTION_RELATIONS, Fact
from longreward.builtin.word_lists import ADJECTIVES, FIELDS, FIGURES, FIRST_NAMES, SURNAMES, THINGS

Kind = Literal["notes", "fact", "whose", "first", "last", "without", "and", "more", "twice", "count"]
Part = Literal["train", "heldout"]
HELD_OUT = 500
"""How many can be held out."""
NOTES = (3, 8)
"""Least and most of them."""


@dataclass(frozen=True)
class ShortItem:
    """An instruction; `answer` is right and `wrong` is not. Any of `accepted` is right too."""

    id: str
    kind: Kind
    query: str
    answer: str
    wrong: str
    accepted: tuple[str, ...] = ()


def short_items(count: int, part: Part = "train") -> list[ShortItem]:
    """The first `count`, notes and the other kinds in turn. ValueError where more than HELD_OUT are to be held out."""
    if part == "heldout" and count > HELD_OUT:
        raise ValueError(f"{count} are more than the {HELD_OUT} that are held out")
    return [_item(part, number) for number in range(count)]


def _item(part: Part, number: int) -> ShortItem:
    rng = random.Random(f"longreward short {part} {number}")
    others = [kind for kind in KINDS if kind != "notes"]
    kind: Kind = "notes" if number % 2 == 0 else others[number // 2 % len(others)]
    while True:
        query, answer, wrong, *accepted = KINDS[kind](rng)
        if part == "heldout" or query not in _held_out():
            return ShortItem(f"{part}-{number}", kind, query, answer, wrong, tuple(accepted))


@cache
def _held_out() -> frozenset[str]:
    return frozenset(item.query for item in short_items(HELD_OUT, "heldout"))


def _notes(rng: random.Random) -> tuple[str, ...]:
    """Several people's; two are of one kind, and the wrong answer gives one the other's."""
    people = _people(rng, rng.randint(*NOTES))
    asked = _drawn(rng, people[0], rng.choice(QUESTION_RELATIONS))
    alike = Fact(people[1], asked.relation, _other(rng, asked).value)
    notes = [asked, alike, *(_drawn(rng, person, rng.choice(QUESTION_RELATIONS)) for person in people[2:])]
    rng.shuffle(notes)
    told = " ".join(note.sentence for note in notes)
    wrong = Fact(asked.subject, asked.relation, alike.value)
    return f"{told}\n\n{_asked(asked)}", asked.sentence, wrong.sentence, f"{asked.value}."


def _fact(rng: random.Random) -> tuple[str, ...]:
    fact = _drawn(rng, _person(rng), rng.choice(QUESTION_RELATIONS))
    return f"{fact.sentence} {_asked(fact)}", fact.sentence, _other(rng, fact).sentence, f"{fact.value}."


def _whose(rng: random.Random) -> tuple[str, ...]:
    """Two people's facts of one kind; the wrong answer gives one the other's."""
    relation, (first, second) = rng.choice(QUESTION_RELATIONS), _people(rng, 2)
    facts = [_drawn(rng, first, relation)]
    facts.append(Fact(second, relation, _other(rng, facts[0]).value))
    asked, other = rng.sample(facts, 2)
    told = " ".join(fact.sentence for fact in facts)
    return f"{told} {_asked(asked)}", asked.sentence, Fact(asked.subject, relation, other.value).sentence


def _first(rng: random.Random) -> tuple[str, ...]:
    words = _words(rng, rng.randint(3, 5))
    return f"Which is first in the list: {', '.join(words)}?", f"{words[0]}.", f"{rng.choice(words[1:])}."


def _last(rng: random.Random) -> tuple[str, ...]:
    words = _words(rng, rng.randint(3, 5))
    return f"Which is last in the list: {', '.join(words)}?", f"{words[-1]}.", f"{rng.choice(words[:-1])}."


def _without(rng: random.Random) -> tuple[str, ...]:
    words = _words(rng, rng.randint(3, 5))
    told = f"What is the list without the first: {', '.join(words)}?"
    return told, f"{', '.join(words[1:])}.", f"{', '.join(words)}."


def _and(rng: random.Random) -> tuple[str, ...]:
    words = _words(rng, rng.randint(3, 5))
    listed = ", ".join(words)
    return f"How is the list written with and: {listed}?", f"{', '.join(words[:-1])} and {words[-1]}.", f"{listed}."


def _more(rng: random.Random) -> tuple[str, ...]:
    few, many = sorted(rng.sample(FIGURES, 2), key=int)
    return f"Which is more: {', '.join(rng.sample([few, many], 2))}?", f"{many}.", f"{few}."


def _twice(rng: random.Random) -> tuple[str, ...]:
    thing = f"{rng.choice(ADJECTIVES)} {rng.choice(THINGS)}"
    return f"How are the words written twice: {thing}?", f"{thing}, {thing}.", f"{thing}."


def _count(rng: random.Random) -> tuple[str, ...]:
    """13 or 18 words: the least figures that the tiny base's vocabulary has."""
    right, wrong = rng.sample(("13", "18"), 2)
    listed = ", ".join(_words(rng, int(right)))
    return f"How many words are in the list: {listed}?", f"{right}.", f"{wrong}."


def _words(rng: random.Random, count: int) -> list[str]:
    return rng.sample((*FIELDS, *ADJECTIVES, *THINGS), count)


def _people(rng: random.Random, count: int) -> list[str]:
    firsts, lasts = rng.sample(FIRST_NAMES, count), rng.sample(SURNAMES, count)
    return [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]


def _person(rng: random.Random) -> str:
    return _people(rng, 1)[0]


def _drawn(rng: random.Random, person: str, relation: str) -> Fact:
    return Fact(person, relation, sample_value(rng, relation))


def _other(rng: random.Random, fact: Fact) -> Fact:
    """The same of the same person, with another value."""
    while (other := _drawn(rng, fact.subject, fact.relation)) == fact:
        pass
    return other


def _asked(fact: Fact) -> str:
    return f"{fact.question[0].upper()}{fact.question[1:]}?"


KINDS: dict[Kind, Callable[[random.Random], tuple[str, ...]]] = {
    "notes": _notes,
    "fact": _fact,
    "whose": _whose,
    "first": _first,
    "last": _last,
    "without": _without,
    "and": _and,
    "more": _more,
    "twice": _twice,
    "count": _count,
}
