"""Labelled items without files: the generator of the built-in corpus knows what is true.

    damaged pairs   the right answer against a copy with one damage, which names the group ("value changed", …)
    damaged lists   the right answer, a fact dropped, a value changed, all wrong: labels 3, 2, 1, 0
    corpus pairs    the gold answer to a question of the corpus against the faulty answer that the corpus trains on
    hard pairs      faults that word overlap does not reveal, in contexts of REGISTERS documents:
        another's value   the document's value of another person
        another's fact    a true fact of the same kind, about a person the question does not ask about
        padded, less      a fact dropped, three true sentences about others added: longer than the right answer
        padded, wrong     another's value, and padded in the same way
        bare              the right values alone, against full sentences with another's value
        partial           an incomplete right answer, against a complete one with another's value
    hard lists      right, right and padded, a fact less, another's value, all wrong: labels 4 to 0

The damaged items use the short documents of the judge validation (`judge_validation.cases`), with other seeds. The
items are the same on every machine.
"""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from longreward.builtin.corpus import read_gold, write_corpus
from longreward.builtin.documents import Document, make_document
from longreward.builtin.gold import measure_against_gold
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import absent_value, format_question, gold_answer, sample_questions
from longreward.data.formats import read_examples
from longreward.errors import DataError
from longreward.judge_validation.cases import make_case
from longreward.records import OptionalDimension
from longreward.reward_bench.items import Item
from longreward.reward_bench.optional_items import optional_items

CASES = 20
"""Cases of each kind, in pairs and in lists."""
DOCUMENTS = 25
"""Documents of the corpus, with four questions each."""
FIRST_CASE = 1000  # the judge validation uses the cases below
REGISTERS = 6
"""Documents in one context of the hard items; about 3,000 words in all."""


def builtin_items(
    cases: int = CASES, documents: int = DOCUMENTS, optional: Collection[OptionalDimension] = ()
) -> Iterator[Item]:
    """Generate all kinds of items: first pairs, then lists, then pairs for the `optional` dimensions."""
    yield from damaged_pairs(cases)
    with TemporaryDirectory() as folder:
        files = write_corpus(Path(folder), documents=documents)
        yield from corpus_pairs(files.corpus, files.gold)
    yield from hard_pairs(cases)
    yield from damaged_lists(cases)
    yield from hard_lists(cases)
    yield from optional_items(cases, optional)


def damaged_pairs(cases: int) -> Iterator[Item]:
    """Generate a pair for each case and kind of damage."""
    for number in range(FIRST_CASE, FIRST_CASE + cases):
        case = make_case(number)
        for kind, damaged in case.damaged.items():
            yield Item(f"{case.id}, {kind}", case.context, case.query, (case.gold, damaged), (1.0, 0.0), kind, case.id)


def damaged_lists(cases: int) -> Iterator[Item]:
    """Generate a list of four for each case. A wrong value counts as worse than a missing one, since it misleads."""
    for number in range(FIRST_CASE, FIRST_CASE + cases):
        case = make_case(number)
        responses = (case.gold, case.damaged["fact dropped"], case.damaged["value changed"], case.bad)
        yield Item(f"{case.id}, list", case.context, case.query, responses, (3.0, 2.0, 1.0, 0.0), "list", case.id)


def corpus_pairs(corpus: Path, gold: Path) -> Iterator[Item]:
    """Generate a pair for each row of the built-in corpus whose answer differs in content from its gold answer.

    DataError where a row has no answer or no gold.
    """
    gold_rows = read_gold(gold)
    for example in read_examples(corpus):
        row = gold_rows.get(int(example.id)) if example.id.isdecimal() else None
        if row is None or example.answer is None:
            raise DataError(f"{corpus}: idx {example.id} has no answer, or no row in {gold}; write both files again")
        measures = measure_against_gold(example.answer, row)
        if not measures.exact:
            responses = (row.answer, example.answer)
            # In this order, since a wrong value also counts as a missing fact.
            if measures.unsupported == 0:
                group = "fact missing"
            else:
                group = "value wrong" if measures.recall < 1 else "sentence added"
            yield Item(example.id, example.context, example.query, responses, (1.0, 0.0), group, example.document_id)


def hard_pairs(cases: int) -> Iterator[Item]:
    """Generate a pair for each case and kind of fault."""
    for case in map(_make_hard_case, range(cases)):
        for kind, responses in case.pairs.items():
            yield Item(f"{case.id}, {kind}", case.context, case.query, responses, (1.0, 0.0), kind, case.id)


def hard_lists(cases: int) -> Iterator[Item]:
    """Generate a list of five for each case."""
    for case in map(_make_hard_case, range(cases)):
        labels = tuple(float(label) for label in reversed(range(len(case.ranking))))
        yield Item(f"{case.id}, list", case.context, case.query, case.ranking, labels, "hard list", case.id)


@dataclass(frozen=True)
class _HardCase:
    id: str
    context: str
    query: str
    pairs: dict[str, tuple[str, str]]
    ranking: tuple[str, ...]  # from best to worst


def _make_hard_case(number: int) -> _HardCase:
    name = f"reward-bench-{number}"
    # The order of the calls of rng determines all items: the table in docs/reward-bench.md depends on it.
    rng = random.Random(f"longreward {name}")
    document = make_document(name, relations_per_theme=3)
    facts, other_fact = _sample_question(rng, document, size=2 + number % 2)
    mistaken = Fact(facts[0].subject, facts[0].relation, other_fact.value)
    subjects = {fact.subject for fact in (*facts, other_fact)}
    padding = gold_answer(rng.sample([fact for fact in document.facts if fact.subject not in subjects], 3))
    gold, incomplete, wrong = gold_answer(facts), gold_answer(facts[:-1]), gold_answer([mistaken, *facts[1:]])
    all_wrong = [Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation)) for fact in facts]
    return _HardCase(
        id=name,
        context=_mix_with_other_registers(rng, document),
        query=format_question(facts),
        pairs={
            "another's value": (gold, wrong),
            "another's fact": (gold, gold_answer([other_fact, *facts[1:]])),
            "padded, less": (gold, f"{incomplete} {padding}"),
            "padded, wrong": (gold, f"{wrong} {padding}"),
            "bare": (f"{', '.join(fact.value for fact in facts)}.", wrong),
            "partial": (incomplete, wrong),
        },
        ranking=(gold, f"{gold} {padding}", incomplete, wrong, gold_answer(all_wrong)),
    )


def _sample_question(rng: random.Random, document: Document, *, size: int) -> tuple[list[Fact], Fact]:
    """Return the facts of a question, and one with the relation of the first about another person."""
    for facts in sample_questions(rng, document, 30):
        subjects = {fact.subject for fact in facts}
        similar = [f for f in document.facts if f.relation == facts[0].relation and f.subject not in subjects]
        if len(facts) == size and similar:
            return facts, rng.choice(similar)
    # A test generates 200 cases without getting here.
    raise AssertionError(f"{document.id}: none of its questions has such a fact")


def _mix_with_other_registers(rng: random.Random, document: Document) -> str:
    """Return the document at a random position among others that do not mention the last names of its people."""
    # A document about a namesake could contradict the labels.
    names = {name for person in document.people for name in person.split()[1:]}
    texts, number = [document.text], 0
    while len(texts) < REGISTERS:
        other = make_document(f"{document.id} beside {number}")
        number += 1
        if names.isdisjoint(other.text.replace(".", " ").replace(",", " ").split()):
            texts.append(other.text)
    rng.shuffle(texts)
    return "\n\n".join(texts)
