"""Gold measures of free text: compare a response of a real model with the facts of a natural document.

    >>> measure_natural("The committee met on May 3rd.", row)     # the document: "held on 3 May"
    GoldMeasures(recall=1.0, unsupported=0.0, exact=True, unasked=0.0)

The claims of a response are its distinct sentences with a name, a date, a time, a number that the question does not
have, or with a value of a fact. A claim is unsupported if

- it has a name, date, time or number that neither the document nor the question has, or first and last name of two
  different people; or
- it states a fact of the document with a wrong value: another value of the same kind next to a word for the fact's
  attribute or in a list of the asked items, the values of two entities exchanged, or two values joined by "or".

A fact is recalled if a sentence has its value in any form ("May 3rd", "thirty-eight", "Voss"), not negated, not next to
another entity's name, and if no sentence states another value of the fact. A superseded value may be named as one
("moved from 2 April to 3 May").

Limits: sentences without such mentions are no claims, so that an invention in plain words ("because it rained") costs
recall only; a true value in a false sentence about something that is no fact of the document is not noticed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from longreward.builtin.gold import GoldMeasures
from longreward.builtin.mentions import find_figures, find_mentions, find_names, split_sentences, words_of
from longreward.builtin.natural_documents import NaturalFact

_CLAUSE_END = re.compile(r";|, (?:and|but|while|whereas|then)\b|\b(?:and|but|while|whereas|then|than)\b|,(?!\d)")
_MAIN_CLAUSE_END = re.compile(r";|, (?:and|but|while|whereas)\b")
_QUESTION = re.compile(
    r"^(?:[^:?]{0,40}: )?(?:(?:on|in|at|from|to|for|with|by) )?"
    r"(?:who|whom|whose|what|which|when|where|why|how|did|does|do|is|was|were|will)\b.*\?$",
    re.IGNORECASE | re.DOTALL,
)
_JOINED_VALUES = re.compile(r"\S+(?: \S+){0,2}?,? (?:and|or) (?:on |in |at |by )?$")  # from a value to the next one
_NEGATION = re.compile(r"\b(?:not|never|no longer|rather than|instead of|neither|nor)\b|n['’]t\b", re.IGNORECASE)
_SUPERSEDED = re.compile(
    r"\b(?:not|never|rather|instead|original\w*|initial\w*|plan\w*|first|earlier|previous\w*|from|intend\w*|meant|"
    r"schedul\w*|suppos\w*|expect\w*|hoped?|predict\w*|than|against|compared|mistake\w*|wrong\w*|withdrawn|until|before|"
    r"old|unlike|although|despite|announced|had been|correct\w*|short of|below)\b|n['’]t\b",
    re.IGNORECASE,
)
_CONTEXT_CHARACTERS = 45  # before a value, in which a negation or a word for a superseded value counts
_MAX_SHORT_WORDS, _MAX_NAME_WORDS = 8, 4
_ARTICLES = re.compile(r"^(?:an?|the|my|his|her|their|our)\s+", re.IGNORECASE)
_FUNCTION_WORDS = frozenset(words_of("a an the of in on at to for by with and or my his her their our from is was"))


@dataclass(frozen=True)
class NaturalGoldRow:
    """The gold answer to a question about a natural document, and all that is true in the document."""

    idx: int
    kind: str
    genre: str
    query: str
    answer: str
    facts: tuple[NaturalFact, ...]
    document_facts: tuple[NaturalFact, ...]
    people: tuple[str, ...]
    context: str

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of document and question, in lower case."""
        return frozenset(words_of(f"{self.context} {self.query}"))

    @cached_property
    def figures(self) -> frozenset[tuple[str, str]]:
        """The dates, times and numbers of document and question."""
        return frozenset((figure.kind, figure.value) for figure in find_figures(f"{self.context}\n{self.query}"))

    @cached_property
    def query_mentions(self) -> frozenset[tuple[str, str]]:
        """The names and figures of the question."""
        return frozenset(find_mentions(self.query))

    @cached_property
    def first_and_last_names(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """First names, last names and full names of the people, in lower case."""
        full = [name.lower() for name in self.people]
        return (
            frozenset(name.split()[0] for name in full),
            frozenset(name.split()[-1] for name in full),
            frozenset(full),
        )


def measure_natural(response: str, row: NaturalGoldRow) -> GoldMeasures:
    """Return the gold measures of a response to the row's question."""
    sentences = {tuple(words_of(text)): _Sentence(text, row) for text in split_sentences(response)}
    claims = [sentence for sentence in sentences.values() if sentence.is_claim]
    if not claims:
        return GoldMeasures(recall=0.0, unsupported=1.0, exact=False, unasked=0.0)
    recalled = [fact for fact in row.facts if _is_recalled(fact, claims)]
    unsupported = [claim for claim in claims if claim.is_unsupported or (not recalled and claim.is_wrong_short_answer)]
    unasked = [claim for claim in claims if claim not in unsupported and not any(map(claim.positions, row.facts))]
    recall = len(recalled) / len(row.facts)
    return GoldMeasures(
        recall=recall,
        unsupported=len(unsupported) / len(claims),
        exact=recall == 1.0 and not unsupported,
        unasked=len(unasked) / len(claims),
    )


def _is_recalled(fact: NaturalFact, claims: Sequence["_Sentence"]) -> bool:
    return any(claim.states(fact) for claim in claims) and not any(claim.contradicts(fact) for claim in claims)


class _Sentence:
    """A sentence of a response with its figures and names."""

    def __init__(self, text: str, row: NaturalGoldRow) -> None:
        self.text = text
        self._lower = text.lower()
        # "Openshaw" must not count as the cue "open".
        names = "|".join(map(re.escape, sorted(row.first_and_last_names[0] | row.first_and_last_names[1])))
        self._unnamed = re.sub(rf"\b(?:{names})\b", lambda name: " " * len(name[0]), self._lower)
        self._row = row
        self._figures = find_figures(text)
        self._names = find_names(text)

    @property
    def is_claim(self) -> bool:
        """Whether the sentence says more than the question: it has another name or figure, or a value of a fact."""
        query = self._row.query_mentions
        if self.text.endswith(":") or _QUESTION.search(self.text):  # a heading, the label of a speaker, or a question
            return False
        return (
            any((figure.kind, figure.value) not in query for figure in self._figures)
            or any(("name", part) not in query for name in self._names for part in name)
            or any(map(self.positions, self._row.facts))
            or any(self.positions(fact) for fact in self._row.document_facts if fact.value not in self._row.query)
        )

    @property
    def is_unsupported(self) -> bool:
        return (
            any((figure.kind, figure.value) not in self._row.figures for figure in self._figures)
            or any(part not in self._row.words for name in self._names for part in name)
            or self._mixes_names()
            or any(self._has_wrong_value(fact) for fact in self._row.document_facts)
            or any(self._is_swapped(fact) or self._is_hedged(fact) for fact in self._row.facts)
            or (self._row.kind == "list" and self._has_wrong_item())
        )

    @property
    def _is_short(self) -> bool:
        """Whether the sentence is short: an answer even if it repeats no word of the question ("2 April.")."""
        return len(words_of(self.text)) <= _MAX_SHORT_WORDS

    @property
    def is_wrong_short_answer(self) -> bool:
        """Whether the sentence is a short answer with something else ("16 August" to "How many …?")."""
        if any(map(self.positions, self._row.facts)):
            return False
        asks_for_figures = all(fact.kind in ("date", "time", "number") for fact in self._row.facts)
        return len(words_of(self.text)) <= _MAX_NAME_WORDS or (
            asks_for_figures and self._is_short and bool(self._figures)
        )

    def positions(self, fact: NaturalFact) -> list[int]:
        """Return where the sentence has the fact's value."""
        return sorted({start for form in (fact.value, *fact.forms) for start in self._find(form, fact.kind)})

    def states(self, fact: NaturalFact) -> bool:
        """Return whether the sentence gives the fact's value as that of its entity."""
        return any(
            (fact.negated or not _NEGATION.search(self._preceding_text(position)))
            and self._entity(position, fact) in (None, fact)
            for position in self.positions(fact)
        )

    def contradicts(self, fact: NaturalFact) -> bool:
        """Return whether the sentence gives another value for the fact, as its only one or as an alternative."""
        return self._has_wrong_value(fact) or self._is_hedged(fact)

    def _is_hedged(self, fact: NaturalFact) -> bool:
        """Return whether a wrong value is joined to the right one ("3 May and 2 April", "3 May or perhaps 2 April")."""
        asked = {other.value for other in self._row.facts}
        texts_between = [
            self._lower[min(right, wrong) : max(right, wrong)]
            for right in self.positions(fact)
            for value in fact.wrong
            if value not in asked
            for wrong in self._find(value, fact.kind)
        ]
        return any(re.search(r"\bor\b", text) or _JOINED_VALUES.match(text) for text in texts_between)

    def _has_wrong_item(self) -> bool:
        """Return whether the sentence has an asked item and, as another one, a wrong value."""
        items = {position for fact in self._row.facts for position in self.positions(fact)}
        return bool(items) and any(
            not self._belongs_to_other_fact(position, fact)
            for fact in self._row.facts
            for value in fact.wrong
            for position in self._find(value, fact.kind)
            if position not in items
        )

    def _belongs_to_other_fact(self, position: int, fact: NaturalFact) -> bool:
        """Return whether the value at `position` belongs to another fact that the sentence is about.

        That fact is asked for, or mentioned before the value and closer than `fact` ("the budget of £900 was spent"),
        or mentioned at all if nothing before the value mentions `fact`.
        """
        owners = [owner for owner in self._row.document_facts if position in self.positions(owner)]
        if any(owner in self._row.facts for owner in owners if owner != fact):
            return True
        prefixes = [prefix for owner in owners for prefix in (*owner.cues, *owner.subjects)]
        owner_position, own_position = (
            max((start for start in self._find_prefixes(words) if start < position), default=-1)
            for words in (prefixes, (*fact.cues, *fact.subjects))
        )
        return owner_position > own_position or (own_position < 0 and self._mentions(prefixes))

    def _has_wrong_value(self, fact: NaturalFact) -> bool:
        """Return whether the sentence, or one of its clauses, has another value of the fact and not the right one."""
        if not self.positions(fact) and self._row.facts == (fact,) and self._is_short:
            return self._has_conflicting_value(fact, 0, len(self.text))
        spans = [(0, len(self.text)), *self._clauses]
        return any(
            self._has_conflicting_value(fact, start, end)
            for start, end in spans
            if any(start <= cue < end for cue in self._find_prefixes(fact.cues))
            if not any(start <= position < end for position in self.positions(fact))
        )

    def _has_conflicting_value(self, fact: NaturalFact, start: int, end: int) -> bool:
        return any(
            not _SUPERSEDED.search(self._preceding_text(position)) and not self._belongs_to_other_fact(position, fact)
            for position in self._conflicting_values(fact)
            if start <= position < end
        )

    @cached_property
    def _clauses(self) -> list[tuple[int, int]]:
        ends = [match.start() for match in _MAIN_CLAUSE_END.finditer(self._lower)]
        return list(pairwise([0, *ends, len(self.text)])) if ends else []

    def _conflicting_values(self, fact: NaturalFact) -> Iterator[int]:
        """Yield where values contradict the fact: those listed as wrong, or any other figure if it alone is asked."""
        for value in fact.wrong:
            yield from self._find(value, fact.kind)
        if self._row.facts == (fact,):
            yield from (figure.start for figure in self._figures if figure.kind == fact.kind)

    def _is_swapped(self, fact: NaturalFact) -> bool:
        """Return whether the fact's value stands with another entity of the question."""
        return any(self._entity(position, fact) not in (None, fact) for position in self.positions(fact))

    def _entity(self, position: int, fact: NaturalFact) -> NaturalFact | None:
        """Return the fact of the question whose entity the value at `position` is about; None if it is open."""
        facts = [other for other in self._row.facts if other.kind == fact.kind and other.subjects]
        if not fact.subjects or len(facts) < 2:
            return None
        subjects = sorted(
            (start, index) for index, other in enumerate(facts) for start in self._find_prefixes(other.subjects)
        )
        values = sorted((start, index) for index, other in enumerate(facts) for start in self.positions(other))
        if subjects and len(values) == len(facts) == len({i for _, i in subjects}) and subjects[-1][0] < values[0][0]:
            # "At A and B, 43 and 24 were counted": in order of their first mentions.
            order = list(dict.fromkeys(index for _, index in subjects))
            return facts[order[[start for start, _ in values].index(position)]]
        in_clause = [(abs(start - position), index) for start, index in subjects if self._same_clause(start, position)]
        if in_clause:
            return facts[min(in_clause)[1]]
        if not subjects and len(values) == len(facts) and [index for _, index in values] != list(range(len(facts))):
            return facts[[start for start, _ in values].index(position)]
        return None

    def _same_clause(self, first: int, second: int) -> bool:
        first, second = sorted((first, second))
        return not _CLAUSE_END.search(self._lower[first:second])

    def _mixes_names(self) -> bool:
        first, last, full = self._row.first_and_last_names
        return any(
            first_name in first and last_name in last and f"{first_name} {last_name}" not in full
            for run in self._names
            for first_name, last_name in pairwise(run)
        )

    def _mentions(self, prefixes: Sequence[str]) -> bool:
        return next(self._find_prefixes(prefixes), None) is not None

    def _find_prefixes(self, prefixes: Sequence[str]) -> Iterator[int]:
        first, last, _ = self._row.first_and_last_names
        for prefix in prefixes:
            text = self._lower if prefix in first | last else self._unnamed
            for match in re.finditer(rf"\b{re.escape(prefix.lower())}", text):
                yield match.start()

    def _preceding_text(self, position: int) -> str:
        return self._lower[max(0, position - _CONTEXT_CHARACTERS) : position]

    def _find(self, form: str, kind: str) -> list[int]:
        """Return where a form of a value occurs."""
        if kind in ("date", "time", "number"):
            targets = find_figures(form)
            return [
                figure.start
                for figure in self._figures
                if any((figure.kind, figure.value) == (other.kind, other.value) for other in targets)
            ]
        words = words_of(_ARTICLES.sub("", form))
        if kind == "person" and len(words) == 1:
            return self._find_name(words[0])
        pattern = r"\W+".join(map(re.escape, words))
        # A short form such as "flood" also stands for "flooded" and "floods".
        if matches := [match.start() for match in re.finditer(rf"\b{pattern}(?:s|es|ed|ing)?\b", self._lower)]:
            return matches
        content_words = [word for word in words if word not in _FUNCTION_WORDS]
        starts = [re.search(rf"\b{re.escape(_stem(content_word))}", self._lower) for content_word in content_words]
        if len(content_words) > 1 and kind == "phrase" and all(starts):
            return [min(match.start() for match in starts if match)]
        return []

    def _find_name(self, name: str) -> list[int]:
        """Return where a first or last name stands alone or in its full name, not next to a name of someone else."""
        first, last, full = self._row.first_and_last_names
        starts = []
        for match in re.finditer(rf"\b{re.escape(name)}\b", self._lower):
            before = words_of(self._lower[: match.start()])[-1:]
            after = words_of(self._lower[match.end() :])[:1]
            names = [*first.intersection(before), name, *last.intersection(after)]
            if len(names) == 1 or " ".join(names) in full:
                starts.append(self._lower.rfind(names[0], 0, match.end()))
        return starts


def _stem(word: str) -> str:
    return re.sub(r"(?:ing|ies|es|ed|s|y)$", "", word) if len(word) > 4 else word


def natural_row_from_json(row: dict[str, Any]) -> NaturalGoldRow:
    """Parse a row of the natural corpus's `gold.jsonl`; raises KeyError or TypeError for any other."""
    return NaturalGoldRow(
        **{name: row[name] for name in ("idx", "kind", "genre", "query", "answer", "context")},
        facts=tuple(map(_fact_from_json, row["facts"])),
        document_facts=tuple(map(_fact_from_json, row["document_facts"])),
        people=tuple(row["people"]),
    )


def _fact_from_json(fact: dict[str, Any]) -> NaturalFact:
    values: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in fact.items()}
    return NaturalFact(**values)
