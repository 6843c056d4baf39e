"""Generate documents: the register of a society, with each member's facts scattered over several paragraphs.

A document has a paragraph for each of four themes (youth, work, numbers, later life), with the members in random order.
All random choices come from one `random.Random` seeded with the document's id: the same id gives the same text on every
machine.
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
    """A generated document and what is true in it."""

    id: str
    text: str
    people: tuple[str, ...]
    facts: tuple[Fact, ...]
    """Questions are about these."""
    background: tuple[Fact, ...]
    """True, but the subject of no question."""
    scenery: tuple[str, ...]
    """All other sentences."""


def make_document(
    document_id: str, *, people: int = 6, facts_per_person: int = 5, scenes: int = 3, relations_per_theme: int = 6
) -> Document:
    """Generate the document with this id: `people` members of a society, each with `facts_per_person` facts.

    Each of the four theme paragraphs also has `scenes` sentences (up to 4) about no member, and uses
    `relations_per_theme` relations: the fewer, the more members share one. With 6 people and 5 facts each, a text has
    about 525 tokens of the tiny base's tokenizer.
    """
    rng = random.Random(f"longreward corpus {document_id}")
    first_names, surnames = rng.sample(FIRST_NAMES, len(FIRST_NAMES)), rng.sample(SURNAMES, len(SURNAMES))
    names = [f"{first} {last}" for first, last in zip(first_names[:people], surnames[:people], strict=True)]
    # Teachers and spouses share no name with a member, so that a surname identifies a member.
    values = _ValueSampler(rng, strangers=(first_names[people:], surnames[people:]))
    by_theme = [[name for name in QUESTION_RELATIONS if RELATIONS[name].theme == theme] for theme in THEMES]
    pools = [rng.sample(pool, min(relations_per_theme, len(pool))) for pool in by_theme]
    relations = {name: _spread_over_themes(rng, pools, facts_per_person) for name in names}
    facts = [Fact(name, relation, values.sample(relation)) for name in names for relation in relations[name]]
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
    """Return a random value that fits the relation."""
    if relation in PHRASES:
        return rng.choice(PHRASES[relation])
    return " ".join(rng.choice(words) for words in VALUES[RELATIONS[relation].kind])


class _ValueSampler:
    """Samples values without using a word twice in a document, so that a value in the text belongs to one fact."""

    def __init__(self, rng: random.Random, *, strangers: tuple[list[str], list[str]]) -> None:
        self._rng = rng
        self._strangers = [f"{first} {last}" for first, last in zip(*strangers, strict=False)]
        self._used: set[str] = set()

    def sample(self, relation: str) -> str:
        if RELATIONS[relation].kind == "person":
            return self._strangers.pop()
        while True:
            value = sample_value(self._rng, relation)
            words = value.split()
            if self._used.isdisjoint(words):
                self._used.update(words)
                return value


def _spread_over_themes(rng: random.Random, pools: Sequence[Sequence[str]], count: int) -> list[str]:
    """Return up to `count` relations, spread evenly over the themes."""
    shuffled = [rng.sample(pool, len(pool)) for pool in rng.sample(pools, len(pools))]
    interleaved = [pool[index] for index in range(max(map(len, pools))) for pool in shuffled if index < len(pool)]
    return interleaved[:count]


def _paragraphs(
    rng: random.Random, names: Sequence[str], facts: Sequence[Fact], scenes_per_paragraph: int
) -> tuple[list[str], list[str]]:
    """Return the paragraphs, and their sentences that state no fact about a member."""
    society = f"{rng.choice(SOCIETIES)} {rng.choice(SOCIETY_KINDS)}"
    scenery = [
        rng.choice(INTRODUCTIONS).format(society=society),
        rng.choice(MEMBERS).format(names=", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]),
    ]
    paragraphs = [" ".join(scenery)]
    scenes = rng.sample(SCENES, len(SCENES))
    for theme in THEMES:
        theme_facts = [fact for fact in facts if RELATIONS[fact.relation].theme == theme]
        rng.shuffle(theme_facts)
        opener = rng.choice(THEME_OPENERS[theme])
        scenery.append(opener)
        sentences = _sentences(rng, theme, theme_facts)
        for _ in range(scenes_per_paragraph):
            scenery.append(scenes.pop())
            sentences.insert(rng.randrange(len(sentences) + 1), scenery[-1])
        paragraphs.append(" ".join([opener, *sentences]))
    return paragraphs, scenery


def _sentences(rng: random.Random, theme: Theme, facts: Sequence[Fact]) -> list[str]:
    """State each fact once: alone or joined with the next, some with an opener before or a tail after."""
    sentences: list[str] = []
    remaining = list(facts)
    while remaining:
        clause = remaining.pop(0).clause
        form = rng.random()
        if remaining and form < 0.3:
            clause += rng.choice((", and ", ", while ")) + remaining.pop(0).clause
        elif form < 0.5:
            clause += " " + rng.choice(TAILS[theme])
        if rng.random() < 0.4:
            clause = rng.choice(OPENERS[theme]) + " " + clause
        sentences.append(clause + ".")
    return sentences
