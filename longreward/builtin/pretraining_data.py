"""What the tiny base is pre-trained on: a document, then what it says asked and told again, with a weight a token.

    <|begin|> document ¶ Mara Voss was born in Kelden. ¶ Where did Ivo Lang settle? Ivo Lang settled in Tarn. ¶ …

A value can be told only by looking it up in the document, so values carry most of the loss: a row teaches retrieval
some thirty times. Questions stand in plain text, without the roles of the chat template, which only SFT teaches.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from longreward.builtin.documents import draw_value, make_document
from longreward.builtin.grammar import MADE_UP, RELATIONS, Fact
from longreward.builtin.questions import FACTS_PER_QUESTION, ask
from longreward.builtin.tokenizer import BEGIN, WORD_PATTERN, vocabulary

TEXT, WORDING, VALUE = 0.03, 0.3, 1.0
"""Weights in the loss: of what can't be foreseen, of an answer's own words, of a value looked up."""
INVENTED = 0.1
"""Share of the lines that follow a made-up sentence: so the base has met the words of the faulty answers' additions."""
IDS = {word: id_ for id_, word in enumerate(vocabulary())}


@dataclass(frozen=True)
class Lesson:
    """Token ids, the weight of each as a prediction target, and for each fact told the span of its value."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Level:
    """How hard the documents of a lesson are."""

    people: int
    facts_per_person: int
    scenes: int
    relations_per_theme: int


def make_lesson(document_id: str, level: Level, *, asked: float = 0.6) -> Lesson:
    """The lesson on that document: each fact told once, a share `asked` in answers to questions, the rest plainly."""
    rng = random.Random(f"longreward lesson {document_id}")
    document = make_document(document_id, **asdict(level))
    facts = rng.sample(document.facts, len(document.facts))
    writer = _Writer()
    writer.write(BEGIN, 0.0)
    writer.write(document.text, TEXT)
    while facts:
        writer.write("\n\n", WORDING)
        if rng.random() < INVENTED:
            relation = rng.choice(MADE_UP)
            writer.tell(
                [Fact(rng.choice(document.people), relation, draw_value(rng, relation))], wording=TEXT, value=TEXT
            )
            writer.write("\n\n", WORDING)
        if rng.random() < asked:
            size = rng.choices(list(FACTS_PER_QUESTION), weights=list(FACTS_PER_QUESTION.values()))[0]
            told, facts = facts[:size], facts[size:]
            writer.write(ask(told), TEXT)
            writer.tell(told, wording=WORDING)
        else:
            told, facts = facts[:1], facts[1:]
            writer.tell(told, wording=TEXT)
    return Lesson(tuple(writer.ids), tuple(writer.weights), tuple(writer.values))


class _Writer:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.values: list[tuple[int, int]] = []

    def write(self, text: str, weight: float) -> None:
        words = [text] if text in IDS else re.findall(WORD_PATTERN, text)
        self.ids += [IDS[word] for word in words]
        self.weights += [weight] * len(words)

    def tell(self, facts: Sequence[Fact], *, wording: float, value: float = VALUE) -> None:
        for fact in facts:
            relation = RELATIONS[fact.relation]
            self.write(fact.subject, wording)
            self.write(relation.cue, wording)
            start = len(self.ids)
            self.write(fact.value, value)
            if value == VALUE:
                self.values.append((start, len(self.ids)))
            self.write(relation.unit + ".", WORDING)
