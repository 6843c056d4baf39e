"""Labelled items for the optional dimensions, from documents of the built-in generator.

    citation wrong         the right answer with its citations, against a copy whose first citation is of another fact
    citation missing       against a copy without the first citation
    citation superfluous   against a copy that cites another fact beside the right one
    rubric given           the right answer, against one with a fact less and three true sentences about others; the
                           facts are the rubric
    rubric written         the same without a rubric

Half of the cited answers are in LongCite's format, half have numbers in brackets.
"""

import random
import re
from collections.abc import Collection, Iterator, Sequence

from longreward.builtin.documents import Document, make_document
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import format_question, gold_answer, sample_questions
from longreward.records import OptionalDimension, RubricItem
from longreward.reward_bench.items import Item


def optional_items(cases: int, dimensions: Collection[OptionalDimension]) -> Iterator[Item]:
    """Generate pairs for each case and kind of damage that one of the dimensions should detect."""
    for number in range(cases):
        if "citations" in dimensions:
            yield from _citation_pairs(number)
        if "rubric" in dimensions:
            yield from _rubric_pairs(number)


def number_sentences(text: str, *, brackets: bool = False) -> str:
    """Number the sentences of a text as LongCite does (`<C0>`), or on lines of their own (`[1]`)."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    if brackets:
        return "\n".join(f"[{number}] {sentence}" for number, sentence in enumerate(sentences, 1))
    return " ".join(f"<C{number}>{sentence}" for number, sentence in enumerate(sentences))


def _citation_pairs(number: int) -> Iterator[Item]:
    document, rng, facts = _sample_case("citations", number)
    brackets = bool(number % 2)
    context = number_sentences(document.text, brackets=brackets)
    right = [[_passage_of(context, fact)] for fact in facts]
    # Another person's fact, not beside the right passage: adjacent passages would count as one citation.
    others = [
        passage
        for fact in document.facts
        if fact.subject not in {asked.subject for asked in facts}
        and abs((passage := _passage_of(context, fact)) - right[0][0]) > 1
    ]
    wrong = rng.choice(others)
    damaged = {
        "citation wrong": [[wrong], *right[1:]],
        "citation missing": [[], *right[1:]],
        "citation superfluous": [[right[0][0], wrong], *right[1:]],
    }
    for kind, citations in damaged.items():
        responses = (_cite(facts, right, brackets=brackets), _cite(facts, citations, brackets=brackets))
        name = f"{document.id}, {kind}"
        yield Item(name, context, format_question(facts), responses, (1.0, 0.0), kind, document.id)


def _rubric_pairs(number: int) -> Iterator[Item]:
    document, rng, facts = _sample_case("rubric", number)
    subjects = {fact.subject for fact in facts}
    padding = gold_answer(rng.sample([fact for fact in document.facts if fact.subject not in subjects], 3))
    responses = (gold_answer(facts), f"{gold_answer(facts[:-1])} {padding}")
    given = tuple(RubricItem(text=fact.sentence) for fact in facts)
    for kind, rubric in (("rubric given", given), ("rubric written", ())):
        name = f"{document.id}, {kind}"
        yield Item(name, document.text, format_question(facts), responses, (1.0, 0.0), kind, document.id, rubric=rubric)


def _sample_case(kind: str, number: int) -> tuple[Document, random.Random, Sequence[Fact]]:
    """Return a document and the two or three facts that a question about it asks for."""
    name = f"reward-bench-{kind}-{number}"
    document = make_document(name)
    rng = random.Random(f"longreward {name}")
    facts = next(facts for facts in sample_questions(rng, document, 30) if len(facts) == 2 + number % 2)
    return document, rng, facts


def _passage_of(context: str, fact: Fact) -> int:
    """Return the number of the sentence that states the fact."""
    before = context.partition(fact.clause)[0]
    return int(re.findall(r"(?:<C|^\[)(\d+)[>\]]", before, re.MULTILINE)[-1])


def _cite(facts: Sequence[Fact], citations: Sequence[Sequence[int]], *, brackets: bool) -> str:
    """Return an answer with a sentence and its citations for each fact."""
    if brackets:
        return " ".join(
            f"{fact.clause}{''.join(f' [{number}]' for number in numbers)}."
            for fact, numbers in zip(facts, citations, strict=True)
        )
    return "".join(
        f"<statement>{fact.sentence}<cite>{''.join(f'[{number}-{number}]' for number in numbers)}</cite></statement>"
        for fact, numbers in zip(facts, citations, strict=True)
    )
