"""Generate documents of several genres from the templates in `genres/`, one YAML file per genre.

    slots:       {chair: person, opened: date 2 May..30 June}      values (`natural_values.py`), sampled in this order
    pools:       {topic: [footbridge, library]}                     choices of this genre
    paragraphs:  a list; each entry is a list of variants, of which one is used, or `asides: [1, 3]`: at least one and
                 at most three of the genre's `asides`, paragraphs without facts
    facts:       {opening: {subject, attribute, value, statement, cues, subjects, wrong}}
    questions:   [{kind, facts, ask, answer}]

A template chooses one of `[this|that]` and fills `{slot}` or `{slot.attribute}`. All random choices come from one
`random.Random` seeded with the document's id: the same id gives the same text on every machine.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from longreward.builtin.natural_values import Kind, Split, Value, ValueSampler

GENRE_FILES = Path(__file__).parent / "genres"
QuestionKind = Literal["single", "two", "list", "open"]
QUESTION_KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)


@dataclass(frozen=True)
class NaturalFact:
    """A true statement about a document, with what the matching of responses needs.

    forms: other forms of the value that a response may use ("Voss" for "Mara Voss").
    wrong: values in the text that are not this fact's: those of another entity, or superseded ones.
    cues: beginnings of words that mention the attribute; empty: only the question decides what an answer is about.
    subjects: beginnings of words that mention the entity; needed where entities share an attribute.
    negated: a response may state the value with "not" ("they never got to X").
    """

    subject: str
    attribute: str
    value: str
    kind: Kind
    statement: str
    forms: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    cues: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class NaturalQuestion:
    """A question with its gold answer and the facts that the answer must state."""

    kind: QuestionKind
    query: str
    answer: str
    facts: tuple[NaturalFact, ...]


@dataclass(frozen=True)
class NaturalDocument:
    """A generated text, what is true in it, and all questions about it."""

    id: str
    genre: str
    text: str
    people: tuple[str, ...]
    facts: tuple[NaturalFact, ...]
    questions: tuple[NaturalQuestion, ...]


def genre_names() -> list[str]:
    """Return the names of the genres in alphabetical order."""
    return sorted(path.stem for path in GENRE_FILES.glob("*.yaml"))


def make_natural_document(split: Split, number: int, *, seed: int = 1, genre: str | None = None) -> NaturalDocument:
    """Generate document `number` of a part; without a genre, consecutive numbers go through all genres."""
    names = genre_names()
    genre = genre or names[number % len(names)]
    template = _load_genre(genre)
    document_id = f"{split}-{genre}-{seed}-{number}"
    rng = random.Random(f"longreward natural {document_id}")
    sampler = ValueSampler(rng, split, template.get("pools", {}))
    values = {name: sampler.sample(specification) for name, specification in template["slots"].items()}
    expand = _Expander(rng, values)
    paragraphs = [expand(text) for text in _choose_paragraphs(rng, template)]
    facts = {name: _make_fact(entry, expand, values) for name, entry in template["facts"].items()}
    return NaturalDocument(
        id=document_id,
        genre=genre,
        text="\n\n".join(paragraphs),
        people=tuple(value.text for value in values.values() if value.kind == "person"),
        facts=tuple(facts.values()),
        questions=tuple(_make_question(entry, expand, facts) for entry in template["questions"]),
    )


@cache
def _load_genre(name: str) -> dict[str, Any]:
    genre: dict[str, Any] = yaml.safe_load((GENRE_FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    return genre


def _choose_paragraphs(rng: random.Random, genre: Mapping[str, Any]) -> list[str]:
    asides = rng.sample(genre["asides"], len(genre["asides"]))
    chosen: list[str] = []
    for entry in genre["paragraphs"]:
        if isinstance(entry, list):
            chosen.append(rng.choice(entry))
        else:
            chosen += [asides.pop() for _ in range(rng.randint(*entry["asides"]))]
    return chosen


class _Expander:
    """Fills templates: innermost alternatives first, then slots, then capital letters after full stops."""

    _ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
    _SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
    _SENTENCE_START = re.compile(r"(^|[.!?]['\"”’]?\s+|\n\s*)([a-z])")

    def __init__(self, rng: random.Random, values: Mapping[str, Value]) -> None:
        self._rng = rng
        self._values = values

    def __call__(self, template: str) -> str:
        text = template.strip()
        while "[" in text:
            text = self._ALTERNATIVES.sub(lambda match: self._rng.choice(match[1].split("|")), text)
        return self.fill(text)

    def fill(self, text: str) -> str:
        """Fill the slots of a text without alternatives."""
        text = self._SLOT.sub(self._value, text)
        text = re.sub(r" +([.,;:?!])", r"\1", re.sub(r"[ \t]+", " ", text))
        return self._SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)

    def _value(self, match: re.Match[str]) -> str:
        value, attribute = self._values[match[1]], match[2]
        if not attribute:
            return value.text
        text = value.attributes[attribute.lower()]
        return text.capitalize() if attribute[0].isupper() else text


def _make_fact(entry: Mapping[str, Any], expand: _Expander, values: Mapping[str, Value]) -> NaturalFact:
    value = values[entry["value"]]
    return NaturalFact(
        subject=expand.fill(entry["subject"]),
        attribute=entry["attribute"],
        value=value.text,
        kind=value.kind,
        statement=expand(entry["statement"]),
        forms=(*value.forms, *map(expand.fill, entry.get("forms", ()))),
        wrong=tuple(values[name].text for name in entry.get("wrong", ())),
        cues=tuple(expand.fill(text).lower() for text in entry.get("cues", ())),
        subjects=tuple(expand.fill(text).lower() for text in entry.get("subjects", ())),
        negated=entry.get("negated", False),
    )


def _make_question(entry: Mapping[str, Any], expand: _Expander, facts: Mapping[str, NaturalFact]) -> NaturalQuestion:
    chosen = tuple(facts[name] for name in entry["facts"])
    answer = expand(entry["answer"]) if "answer" in entry else " ".join(fact.statement for fact in chosen)
    return NaturalQuestion(entry["kind"], expand(expand._rng.choice(entry["ask"])), answer, chosen)
