"""Seeded documents: the register of a society whose members' facts are scattered over several paragraphs.

A document tells four themes (youth, work, numbers, later life) in paragraphs of their own, and in each the members come
in random order, so that what is known of one person stands in different places. Everything is drawn from one
`random.Random` seeded by the document's id: the same id gives the same text on every machine.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from longreward.builtin.grammar import (
    BACKGROUND_RELATIONS,
    INTRODUCTIONS,
    MEMBERS,
    OPENERS,
    PHRASES,
    QUESTION_RELATIONS,
    RELATIONS,
    SCENES,
    TAILS,
    THEME_OPENERS,
    VALUES,
    Fact,
    Theme,
)
from longreward.builtin.word_lists import FIRST_NAMES, SOCIETIES, SOCIETY_KINDS, SURNAMES

THEMES: tuple[Theme, ...] = ("youth", "work", "numbers", "later")


@dataclass(frozen=True)
class Document:
    """`facts` may be asked about; `background` is true too but never asked; `scenery` is every other sentence."""

    id: str
    text: str
    people: tuple[str, ...]
    facts: tuple[Fact, ...]
    background: tuple[Fact, ...]
    scenery: tuple[str, ...]


def make_document(
    document_id: str, *, people: int = 6, facts_per_person: int = 5, scenes: int = 3, relations_per_theme: int = 6
) -> Document:
    """The document of that id: about `people` members of a society, each with `facts_per_person` facts.

    Each of its four long paragraphs also holds `scenes` sentences (up to 4) that say nothing about a member, and
    draws on `relations_per_theme` relations: the fewer, the more members share one.

    With 6 people and 5 facts each a text has about 525 tokens of the tiny base's tokenizer.
    """
    rng = random.Random(f"longreward corpus {document_id}")
    first_names, surnames = rng.sample(FIRST_NAMES, len(FIRST_NAMES)), rng.sample(SURNAMES, len(SURNAMES))
    names = [f"{first} {last}" for first, last in zip(first_names[:people], surnames[:people], strict=True)]
    # Nobody mentioned as a teacher or a spouse shares a name with a member: a surname tells who is meant.
    values = _ValueSource(rng, strangers=(first_names[people:], surnames[people:]))
    pools = [_pool(rng, theme, relations_per_theme) for theme in THEMES]
    relations = {name: _relations(rng, pools, facts_per_person) for name in names}
    facts = [Fact(name, relation, values.draw(relation)) for name in names for relation in relations[name]]
    background = [
        Fact(name, (relation := rng.choice(BACKGROUND_RELATIONS)), rng.choice(PHRASES[relation])) for name in names
    ]
    paragraphs, scenery = _paragraphs(rng, names, (*facts, *background), scenes)
    return Document(
        id=document_id,
        text="\n\n".join(paragraphs),
        people=tuple(names),
        facts=tuple(facts),
        background=tuple(background),
        scenery=tuple(scenery),
    )


def sample_value(rng: random.Random, relation: str) -> str:
    """Any value that fits the relation."""
    if relation in PHRASES:
        return rng.choice(PHRASES[relation])
    return " ".join(rng.choice(words) for words in VALUES[RELATIONS[relation].kind])


class _ValueSource:
    """Draws values so that no word serves twice in a document: a value found in the text has one owner."""

    def __init__(self, rng: random.Random, *, strangers: tuple[list[str], list[str]]) -> None:
        self._rng = rng
        self._strangers = [f"{first} {last}" for first, last in zip(*strangers, strict=False)]
        self._used: set[str] = set()

    def draw(self, relation: str) -> str:
        if RELATIONS[relation].kind == "person":
            return self._strangers.pop()
        while True:
            value = sample_value(self._rng, relation)
            words = value.split()
            if self._used.isdisjoint(words):
                self._used.update(words)
                return value


def _pool(rng: random.Random, theme: Theme, size: int) -> list[str]:
    names = [name for name in QUESTION_RELATIONS if RELATIONS[name].theme == theme]
    return rng.sample(names, min(size, len(names)))


def _relations(rng: random.Random, pools: Sequence[Sequence[str]], count: int) -> list[str]:
    """`count` relations (fewer where the pools are small), spread over the themes as evenly as it goes."""
    shuffled = [rng.sample(pool, len(pool)) for pool in rng.sample(pools, len(pools))]
    dealt = [pool[turn] for turn in range(max(map(len, pools))) for pool in shuffled if turn < len(pool)]
    return dealt[:count]


def _paragraphs(
    rng: random.Random, names: Sequence[str], facts: Sequence[Fact], scenes_per_paragraph: int
) -> tuple[list[str], list[str]]:
    """The paragraphs, and those of their sentences that state no fact about a member."""
    society = f"{rng.choice(SOCIETIES)} {rng.choice(SOCIETY_KINDS)}"
    scenery = [
        rng.choice(INTRODUCTIONS).format(society=society),
        rng.choice(MEMBERS).format(names=", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]),
    ]
    paragraphs = [" ".join(scenery)]
    scenes = rng.sample(SCENES, len(SCENES))
    for theme in THEMES:
        told = [fact for fact in facts if RELATIONS[fact.relation].theme == theme]
        rng.shuffle(told)
        opener = rng.choice(THEME_OPENERS[theme])
        scenery.append(opener)
        sentences = _sentences(rng, theme, told)
        for _ in range(scenes_per_paragraph):
            scenery.append(scenes.pop())
            sentences.insert(rng.randrange(len(sentences) + 1), scenery[-1])
        paragraphs.append(" ".join([opener, *sentences]))
    return paragraphs, scenery


def _sentences(rng: random.Random, theme: Theme, facts: Sequence[Fact]) -> list[str]:
    """Each fact told once: alone or paired with the next, some with an opener before or a tail behind."""
    sentences: list[str] = []
    waiting = list(facts)
    while waiting:
        clause = waiting.pop(0).clause
        shape = rng.random()
        if waiting and shape < 0.3:
            clause += rng.choice((", and ", ", while ")) + waiting.pop(0).clause
        elif shape < 0.5:
            clause += " " + rng.choice(TAILS[theme])
        if rng.random() < 0.4:
            clause = rng.choice(OPENERS[theme]) + " " + clause
        sentences.append(clause + ".")
    return sentences
