"""Labelled items for nothing, since the built-in corpus knows what is true.

    damaged pairs   the right answer against it with one damage, in the damage's group ("value changed", …)
    damaged lists   the right answer, it with a fact dropped, it with a value changed, one all bad: labels 3, 2, 1, 0
    corpus pairs    the gold answer to a question of the corpus against the faulty one that the corpus trains on

The damaged ones are about the short documents of the judge's check (`judge_validation.cases`), from seeds of their own.
"""

from collections.abc import Iterator
from pathlib import Path

from longreward.builtin.corpus import read_gold
from longreward.builtin.gold import GoldMeasures, measure
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
        measures = measure(example.answer, row)
        if not measures.exact:
            responses = (row.answer, example.answer)
            group = _fault(measures)
            yield Item(example.id, example.context, example.query, responses, (1.0, 0.0), group, example.document_id)


def _fault(measures: GoldMeasures) -> str:
    if measures.unsupported == 0:
        return "fact missing"
    return "value wrong" if measures.recall < 1 else "sentence added"
