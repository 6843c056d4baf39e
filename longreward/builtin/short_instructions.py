"""Short instructions without a document, each with a right and a wrong answer, in the words of the tiny base.

    >>> item = short_items(6)[5]
    >>> item.kind, item.query, item.answer, item.wrong
    ('first', 'Which is first in the list: philosophy, statue, astronomy, bronze?', 'philosophy.', 'bronze.')

They represent the other tasks of a model for long documents. Every second one is a question about a few notes, which
the tiny base can learn. The others are about a fact in one sentence, the first or last item of a list, a list in
another form, the larger of two figures, or the number of words; most of these it cannot learn. The n-th instruction is
the same on every machine. Held-out instructions share no question with those for training.
"""

import random
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from longreward.builtin.documents import sample_value
from longreward.builtin.grammar import QUESTION_RELATIONS, Fact
from longreward.builtin.questions import format_question
from longreward.builtin.word_lists import ADJECTIVES, FIELDS, FIGURES, FIRST_NAMES, SURNAMES, THINGS

Kind = Literal["notes", "fact", "whose", "first", "last", "without", "and", "more", "twice", "count"]
Split = Literal["train", "heldout"]
HELD_OUT = 500
"""The number of held-out instructions."""
NOTES = (3, 8)
"""The lowest and highest number of notes."""
WORDS = (*FIELDS, *ADJECTIVES, *THINGS)


@dataclass(frozen=True)
class ShortItem:
    """An instruction with a right and a wrong answer; the answers `accepted` are right too."""

    id: str
    kind: Kind
    query: str
    answer: str
    wrong: str
    accepted: tuple[str, ...] = ()


def short_items(count: int, split: Split = "train") -> list[ShortItem]:
    """Return the first `count`, alternating notes and other kinds; raises ValueError for more than HELD_OUT."""
    if split == "heldout" and count > HELD_OUT:
        raise ValueError(f"{count} are more than the {HELD_OUT} that are held out")
    other_kinds: tuple[Kind, ...] = get_args(Kind)[1:]
    items = []
    for number in range(count):
        rng = random.Random(f"longreward short {split} {number}")
        kind: Kind = "notes" if number % 2 == 0 else other_kinds[number // 2 % len(other_kinds)]
        query, answer, wrong, *accepted = _sample_texts(kind, rng)
        while split == "train" and query in _held_out():
            query, answer, wrong, *accepted = _sample_texts(kind, rng)
        items.append(ShortItem(f"{split}-{number}", kind, query, answer, wrong, tuple(accepted)))
    return items


@cache
def _held_out() -> frozenset[str]:
    return frozenset(item.query for item in short_items(HELD_OUT, "heldout"))


def _sample_texts(kind: Kind, rng: random.Random) -> tuple[str, ...]:
    """Return the query, the right and the wrong answer, and other accepted answers."""
    match kind:
        case "notes" | "fact" | "whose":
            return {"notes": _notes, "fact": _fact, "whose": _whose}[kind](rng)
        case "more":
            smaller, larger = sorted(rng.sample(FIGURES, 2), key=int)
            return f"Which is more: {', '.join(rng.sample([smaller, larger], 2))}?", f"{larger}.", f"{smaller}."
        case "twice":
            phrase = f"{rng.choice(ADJECTIVES)} {rng.choice(THINGS)}"
            return f"How are the words written twice: {phrase}?", f"{phrase}, {phrase}.", f"{phrase}."
        case "count":  # a list of 13 or 18 words, the smallest figures in the tiny base's vocabulary
            right, wrong = rng.sample(("13", "18"), 2)
            listed = ", ".join(rng.sample(WORDS, int(right)))
            return f"How many words are in the list: {listed}?", f"{right}.", f"{wrong}."
    words = rng.sample(WORDS, rng.randint(3, 5))
    listed = ", ".join(words)
    match kind:
        case "first":
            return f"Which is first in the list: {listed}?", f"{words[0]}.", f"{rng.choice(words[1:])}."
        case "last":
            return f"Which is last in the list: {listed}?", f"{words[-1]}.", f"{rng.choice(words[:-1])}."
        case "without":
            return f"What is the list without the first: {listed}?", f"{', '.join(words[1:])}.", f"{listed}."
        case "and":
            joined = f"{', '.join(words[:-1])} and {words[-1]}"
            return f"How is the list written with and: {listed}?", f"{joined}.", f"{listed}."


def _notes(rng: random.Random) -> tuple[str, ...]:
    """Notes about several people, two with the same relation; the wrong answer has the other's value."""
    people = _people(rng, rng.randint(*NOTES))
    fact = _random_fact(rng, people[0], rng.choice(QUESTION_RELATIONS))
    distractor = Fact(people[1], fact.relation, _with_other_value(rng, fact).value)
    notes = [fact, distractor, *(_random_fact(rng, person, rng.choice(QUESTION_RELATIONS)) for person in people[2:])]
    rng.shuffle(notes)
    text = " ".join(note.sentence for note in notes)
    wrong = Fact(fact.subject, fact.relation, distractor.value)
    return f"{text}\n\n{format_question([fact])}", fact.sentence, wrong.sentence, f"{fact.value}."


def _fact(rng: random.Random) -> tuple[str, ...]:
    (person,) = _people(rng, 1)
    fact = _random_fact(rng, person, rng.choice(QUESTION_RELATIONS))
    query = f"{fact.sentence} {format_question([fact])}"
    return query, fact.sentence, _with_other_value(rng, fact).sentence, f"{fact.value}."


def _whose(rng: random.Random) -> tuple[str, ...]:
    """Facts of two people with the same relation; the wrong answer has the other's value."""
    relation, (first, second) = rng.choice(QUESTION_RELATIONS), _people(rng, 2)
    facts = [_random_fact(rng, first, relation)]
    facts.append(Fact(second, relation, _with_other_value(rng, facts[0]).value))
    fact, distractor = rng.sample(facts, 2)
    query = f"{' '.join(item.sentence for item in facts)} {format_question([fact])}"
    return query, fact.sentence, Fact(fact.subject, relation, distractor.value).sentence


def _people(rng: random.Random, count: int) -> list[str]:
    firsts, lasts = rng.sample(FIRST_NAMES, count), rng.sample(SURNAMES, count)
    return [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]


def _random_fact(rng: random.Random, person: str, relation: str) -> Fact:
    return Fact(person, relation, sample_value(rng, relation))


def _with_other_value(rng: random.Random, fact: Fact) -> Fact:
    """Return the fact with another value."""
    while (other := _random_fact(rng, fact.subject, fact.relation)) == fact:
        pass
    return other
