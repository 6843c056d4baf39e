"""The offline judge's rules for the optional dimensions: rubrics and citations."""

import re
from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.answer_candidates import extract_relevance
from longreward.builtin.offline_judge.lexical import META, neutralize, parse_sentence, split_sentences
from longreward.builtin.offline_judge.overlap import (
    SUPPORT_LABELS,
    clauses,
    coverage,
    evidence_clauses,
    evidence_sentences,
    relevance,
    support_level,
)
from longreward.builtin.offline_judge.sub_questions import split_question

Slots = Mapping[str, str]
OPEN_ITEMS = 4  # of a rubric, for a sub-question that asks for more than a value
MET_COVERAGE = 0.5
RELEVANT_SHARE = 0.5  # of the terms of a statement, in one sentence of the passage
NEW_WORDS = 2  # that make a sentence without a new value a fact


def rubric(slots: Slots) -> str:
    """List the sentences of the extracts that fit each sub-question best."""
    evidence = evidence_sentences(slots["context"])
    items: dict[str, None] = {}
    for sub_question in split_question(slots["question"]):
        rated = [
            (relevance(sub_question.about, s) + extract_relevance([sub_question], evidence, index), -index, s.text)
            for index, s in enumerate(evidence)
        ]
        ranked = sorted((entry for entry in rated if entry[0] > 0), reverse=True)
        items |= dict.fromkeys(text for _, _, text in ranked[: OPEN_ITEMS if sub_question.is_open else 1])
    if not items:
        return "1. The answer says that the document does not contain this information."
    return "\n".join(f"{number}. {neutralize(' '.join(text.split()))}" for number, text in enumerate(items, 1))


def rubric_check(slots: Slots) -> str:
    """Reply whether the answer covers at least half of what each item adds to the question."""
    question = parse_sentence(slots["question"])
    units = [unit for s in split_sentences(slots["answer"]) for unit in {s, *clauses(s)}]
    lines = []
    for number, item in enumerate(_ITEM.findall(slots["rubric"]), 1):
        covered = coverage(units, parse_sentence(item.strip()), question)
        verdict = "Met" if covered >= MET_COVERAGE else "Not met"
        lines.append(f"{number}. {covered:.2f} of it is in the answer. [[{verdict}]]")
    return "\n".join(lines)


def citation_support(slots: Slots) -> str:
    """Return whether one sentence of the cited passages supports the statement, or each of its clauses."""
    evidence = evidence_clauses(slots["context"], joined=True)
    level, closest = support_level(parse_sentence(slots["statement"].strip()), evidence)
    text = neutralize(closest.text if closest else "none")
    return f'The closest sentence is: "{text}".\nSupport: [[{SUPPORT_LABELS[level]}]]'


def citation_relevance(slots: Slots) -> str:
    """Reply whether a sentence of the passage supports the statement, or has half of its terms."""
    evidence = evidence_clauses(slots["context"], joined=True)
    claim = parse_sentence(slots["statement"].strip())
    level, _ = support_level(claim, evidence)
    shared = max((len(claim.terms & s.terms) for s in evidence), default=0)
    relevant = level > 0 or (shared > 0 and shared >= RELEVANT_SHARE * len(claim.terms))
    verdict = "Relevant" if relevant else "Irrelevant"
    return f"{shared} of {len(claim.terms)} terms are in one sentence.\nVerdict: [[{verdict}]]"


def citation_need(slots: Slots) -> str:
    """Reply whether the sentence states a value, or several words, that neither question nor other sentences have."""
    claim = parse_sentence(slots["statement"].strip())
    others = [s for s in split_sentences(slots["answer"]) if s.text != claim.text]
    known = parse_sentence(slots["question"]).terms.union(META, *(s.terms for s in others))
    new = claim.terms - known
    needed = bool(new & (claim.numbers | claim.name_terms)) or len(new) >= NEW_WORDS
    return f"{len(new)} of its terms are new.\nVerdict: [[{'Needed' if needed else 'Not needed'}]]"


OPTIONAL_DIMENSION_RULES: dict[str, Callable[[Slots], str]] = {
    "rubric": rubric,
    "rubric_check": rubric_check,
    "citation_support": citation_support,
    "citation_relevance": citation_relevance,
    "citation_need": citation_need,
}

_ITEM = re.compile(r"^\d{1,4}\. (.+)$", re.MULTILINE)
