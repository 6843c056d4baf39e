"""Labelled items for nothing, since the built-in corpus knows what is true.

    damaged pairs   the right answer against it with one damage, in the damage's group ("value changed", …)
    damaged lists   the right answer, it with a fact dropped, it with a value changed, one all bad: labels 3, 2, 1, 0
    corpus pairs    the gold answer to a question of the corpus against the faulty one that the corpus trains on

The damaged ones are about the short documents of the judge's check (`judge_validation.cases`), from seeds of their own.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from longreward.builtin.corpus import read_gold, write_corpus
from longreward.builtin.documents import Document, make_document
from longreward.builtin.gold import GoldMeasures, measure_against_gold
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import absent_value, format_question, gold_answer, sample_questions
from longreward.data.formats import read_examples
from longreward.errors import DataError
from longreward.judge_validation.cases import make_case
from longreward.reward_bench.items import Item

FIRST = 1000
"""Numbers of cases from here on: the judge's check takes the first ones."""


def damaged_pairs(cases: int) -> Iterator[Item]:
    """A pair for each kind of damage and case; the same on every machine."""
    for number in range(FIRST, FIRST + cases):
        case = make_case(number)
        for kind, damaged in case.damaged.items():
            name = f"{case.id}, {kind}"
            yield Item(name, case.context, case.query, (case.gold, damaged), (1.0, 0.0), kind, case.id)


def damaged_lists(cases: int) -> Iterator[Item]:
    """A list of four for each case. A wrong value counts as worse than a missing one: it misleads."""
    for number in range(FIRST, FIRST + cases):
        case = make_case(number)
        responses = (case.gold, case.damaged["fact dropped"], case.damaged["value changed"], case.bad)
        yield Item(f"{case.id}, list", case.context, case.query, responses, (3.0, 2.0, 1.0, 0.0), "list", case.id)


def corpus_pairs(corpus: Path, gold: Path) -> Iterator[Item]:
    """A pair for each row whose answer states less or other than its gold answer; DataError where a row has no gold.

    The files of `python -m longreward.builtin`.
    """
    known = read_gold(gold)
    for example in read_examples(corpus):
        row = known.get(int(example.id)) if example.id.isdecimal() else None
        if row is None or example.answer is None:
            raise DataError(f"{corpus}: idx {example.id} has no answer, or no row in {gold}; write both anew")
        measures = measure_against_gold(example.answer, row)
        if not measures.exact:
            responses = (row.answer, example.answer)
            group = _fault(measures)
            yield Item(example.id, example.context, example.query, responses, (1.0, 0.0), group, example.document_id)


def _fault(measures: GoldMeasures) -> str:
    if measures.unsupported == 0:
        return "fact missing"
    return "value wrong" if measures.recall < 1 else "sentence added"


# Labelled items that shared words alone do not settle: six registers in one context, faults that look right.
#
# another's value   a value that the document gives, of somebody else
# another's fact    true, of the same kind, about somebody who was not asked for
# padded, less      a fact dropped, three true sentences about others added: longer than the right answer
# padded, wrong     another's value, and so padded
# bare              the values alone, which are right, against full sentences with another's value
# partial           right as far as it goes, against all that was asked with another's value
#
# >>> item = next(hard_pairs(1))
# >>> item.group, item.responses
# ("another's value", ('Thea Penrose drew 178 maps. …', 'Thea Penrose drew 78 maps. …'))


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
        query=format_question(facts),
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
    for facts in sample_questions(rng, document, 30):
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


# The built-in labelled items: what a judge can be measured with before there are labels of one's own.


CASES = 20
"""Of each kind of made ones, in pairs and in lists."""
DOCUMENTS = 25
"""Of the corpus, with four questions each."""


def builtin_items(cases: int = CASES, documents: int = DOCUMENTS) -> Iterator[Item]:
    """Pairs and lists with known labels, easy ones first; the same on every machine."""
    yield from damaged_pairs(cases)
    yield from _corpus(documents)
    yield from hard_pairs(cases)
    yield from damaged_lists(cases)
    yield from hard_lists(cases)


def _corpus(documents: int) -> Iterator[Item]:
    with TemporaryDirectory() as folder:
        written = write_corpus(Path(folder), documents=documents)
        yield from corpus_pairs(written.corpus, written.gold)
