"""The grammar of the corpus: relations, their sentences and questions, and the decoration of sentences.

    >>> fact = Fact("Mara Voss", "birthplace", "Kelden")
    >>> fact.sentence, fact.question
    ('Mara Voss was born in Kelden.', 'where was Mara Voss born')

In every sentence of a fact, the name is directly before the verb and the value directly after the cue. For a very small
model, this is a key (surname and verb) close to the value that it must look up.
"""

from dataclasses import dataclass
from typing import Literal

from longreward.builtin import word_lists

ValueType = Literal["place", "year", "figure", "person", "object", "title", "field", "phrase"]
Theme = Literal["youth", "work", "numbers", "later"]


@dataclass(frozen=True)
class Relation:
    """A kind of fact. `verb` is the one word of the cue that no other relation has; `unit` follows the value."""

    name: str
    kind: ValueType
    theme: Theme
    cue: str
    verb: str
    question: str
    unit: str = ""


@dataclass(frozen=True)
class Fact:
    """A true or fabricated statement: a person's full name, the name of a relation, and the value as it is printed."""

    subject: str
    relation: str
    value: str

    @property
    def clause(self) -> str:
        """Return the statement without its full stop."""
        relation = RELATIONS[self.relation]
        return " ".join(part for part in (self.subject, relation.cue, self.value, relation.unit) if part)

    @property
    def sentence(self) -> str:
        return self.clause + "."

    @property
    def question(self) -> str:
        """Return the question that this fact answers, without capital letter or question mark."""
        return RELATIONS[self.relation].question.format(name=self.subject)


_QUESTIONS = (
    Relation("birthplace", "place", "youth", "was born in", "born", "where was {name} born"),
    Relation("teacher", "person", "youth", "was taught by", "taught", "who taught {name}"),
    Relation("field", "field", "youth", "studied", "studied", "what did {name} study"),
    Relation("start", "year", "youth", "entered service in", "entered", "when did {name} enter service"),
    Relation("discovery", "object", "work", "discovered the", "discovered", "what did {name} discover"),
    Relation("building", "object", "work", "built the", "built", "what did {name} build"),
    Relation("book", "title", "work", "wrote the book", "wrote", "which book did {name} write"),
    Relation("gift", "object", "work", "donated the", "donated", "what did {name} donate"),
    Relation("pupils", "figure", "numbers", "trained", "trained", "how many pupils did {name} train", "pupils"),
    Relation("letters", "figure", "numbers", "sent", "sent", "how many letters did {name} send", "letters"),
    Relation("maps", "figure", "numbers", "drew", "drew", "how many maps did {name} draw", "maps"),
    Relation("wage", "figure", "numbers", "earned", "earned", "how many crowns did {name} earn", "crowns"),
    Relation("journey", "place", "later", "travelled to", "travelled", "where did {name} travel"),
    Relation("home", "place", "later", "settled in", "settled", "where did {name} settle"),
    Relation("spouse", "person", "later", "married", "married", "whom did {name} marry"),
    Relation("end", "year", "later", "retired in", "retired", "when did {name} retire"),
    Relation("successor", "person", "later", "was succeeded by", "succeeded", "who succeeded {name}"),
    Relation("grave", "place", "later", "was buried in", "buried", "where was {name} buried"),
)
_BACKGROUND = (
    Relation("liking", "phrase", "youth", "was fond of", "fond", "what was {name} fond of"),
    Relation("garden", "phrase", "work", "kept a garden of", "kept", "what did {name} grow"),
    Relation("renown", "phrase", "numbers", "was known for", "known", "what was {name} known for"),
    Relation("silence", "phrase", "later", "seldom spoke of", "spoke", "of what did {name} seldom speak"),
)
_FABRICATED = (
    Relation("prize", "year", "later", "also won a famous prize in", "won", "when did {name} win a prize"),
    Relation("songs", "figure", "youth", "also knew", "knew", "how many songs did {name} know", "old songs"),
    Relation("council", "place", "later", "also sat on the council of", "sat", "on which council did {name} sit"),
    Relation("singer", "place", "work", "also sang at the opera in", "sang", "where did {name} sing"),
    Relation("horses", "figure", "later", "also owned", "owned", "how many horses did {name} own", "fast horses"),
    Relation("duel", "person", "later", "also fought a duel with", "fought", "with whom did {name} fight"),
)
QUESTION_RELATIONS = tuple(relation.name for relation in _QUESTIONS)
BACKGROUND_RELATIONS = tuple(relation.name for relation in _BACKGROUND)
FABRICATED_RELATIONS = tuple(relation.name for relation in _FABRICATED)
"""Relations that no document states: the faulty answers' fabrications."""
RELATIONS = {relation.name: relation for relation in (*_QUESTIONS, *_BACKGROUND, *_FABRICATED)}

PHRASES: dict[str, tuple[str, ...]] = {
    "liking": ("long walks", "strong tea", "old coins", "loud music", "card games", "cold mornings"),
    "garden": ("roses", "herbs", "tulips", "beans", "lilies", "apple trees"),
    "renown": ("patience", "dry humour", "good manners", "sharp words", "great courage", "bad handwriting"),
    "silence": ("politics", "money", "the war", "family matters", "old quarrels", "religion"),
}

_SOBER_OPENERS = (
    "By all accounts,",
    "According to the minutes,",
    "As the register shows,",
    "As everyone recalled,",
    "It is certain that",
    "One page notes that",
    "The clerk adds that",
    "Friends later wrote that",
)
_LIVELY_OPENERS = (
    *_SOBER_OPENERS,
    "To the surprise of many,",
    "After much debate,",
    "Before long,",
    "In a difficult season,",
    "Against all advice,",
)
OPENERS: dict[Theme, tuple[str, ...]] = {
    "youth": _SOBER_OPENERS,
    "work": _LIVELY_OPENERS,
    "numbers": _SOBER_OPENERS,
    "later": _LIVELY_OPENERS,
}
_SOBER_TAILS = ("as the papers confirm", "as far as anyone knows", "if the register is right")
_LIVELY_TAILS = (
    *_SOBER_TAILS,
    "after a hard winter",
    "with the help of friends",
    "to general delight",
    "without any fuss",
    "while others hesitated",
)
TAILS: dict[Theme, tuple[str, ...]] = {
    "youth": _SOBER_TAILS,
    "work": _LIVELY_TAILS,
    "numbers": _SOBER_TAILS,
    "later": _LIVELY_TAILS,
}
THEME_OPENERS: dict[Theme, tuple[str, ...]] = {
    "youth": (
        "The early pages deal with childhood and training.",
        "Much has been asked about how these people began.",
        "The first part of the register is about early years.",
    ),
    "work": (
        "The middle pages describe what the members achieved.",
        "Most visitors come to read about the great works.",
        "A longer part of the register lists deeds and gifts.",
    ),
    "numbers": (
        "The treasurer liked figures and left a careful list.",
        "Several columns of the register hold nothing but sums.",
        "Some matters can be told in plain numbers.",
    ),
    "later": (
        "The last pages tell how these lives went on.",
        "Later years brought journeys, weddings and farewells.",
        "The register closes with news of a more private kind.",
    ),
}
SCENES = (
    "The rooms were small and the stove smoked.",
    "Rain often kept the members indoors for days.",
    "A cat slept on the table during most meetings.",
    "The minutes of that time are written in blue ink.",
    "Nobody could agree on the price of coal.",
    "Visitors were welcome on the first day of the month.",
    "The roof was repaired twice and leaked again.",
    "A heavy oak door led to the reading room.",
    "Much of the furniture was borrowed from neighbours.",
    "The market square was noisy on most days.",
    "Bread and cheese were served at noon.",
    "Several pages of the register were lost in a flood.",
    "Dust lay on the shelves and on the chairs.",
    "The street outside was narrow and badly lit.",
    "Children used to listen at the windows.",
    "The old piano was never in tune.",
)
INTRODUCTIONS = (
    "The {society} met for many years in a narrow house near the river.",
    "This is a short account of the {society} and of its members.",
    "Few people now remember the {society}, but its register survives.",
)
MEMBERS = (
    "Its best known members were {names}.",
    "The register speaks above all of {names}.",
    "Its pages return again and again to {names}.",
)

VALUES: dict[ValueType, tuple[tuple[str, ...], ...]] = {
    "place": (word_lists.PLACES,),
    "year": (word_lists.YEARS,),
    "figure": (word_lists.FIGURES,),
    "person": (word_lists.FIRST_NAMES, word_lists.SURNAMES),
    "object": (word_lists.ADJECTIVES, word_lists.THINGS),
    "title": (word_lists.TITLE_ADJECTIVES, word_lists.TITLE_NOUNS),
    "field": (word_lists.FIELDS,),
}
"""The word lists of each kind of value, in order; "phrase" values are in PHRASES, by relation."""
