"""The offline judge's rules for FactScore: clauses are facts; one is true where a sentence bears it out in full."""

from collections.abc import Callable, Mapping

from longreward.builtin.offline_judge.lexical import parse_sentence
from longreward.builtin.offline_judge.overlap import clauses, evidence_clauses, support_level


def facts(slots: Mapping[str, str]) -> str:
    """The clauses of the sentence, each on a line; none of a question or of a sentence without content words."""
    told = parse_sentence(slots["sentence"].strip())
    if not told.terms or told.text.endswith(("?", "？", ":", "：")):
        return "No fact."
    lines = dict.fromkeys(" ".join(part.text.split()) for part in clauses(told))
    return "\n".join(f"- {line}" for line in lines if line)


def check(slots: Mapping[str, str]) -> str:
    """True where one sentence of the passages says all of it."""
    level, _ = support_level(parse_sentence(slots["fact"].strip()), evidence_clauses(slots["context"], joined=True))
    return str(level == 1)


RULES: dict[str, Callable[[Mapping[str, str]], str]] = {"factscore/facts": facts, "factscore/check": check}
