"""Which questions on one document ask the same thing in nearly the same words."""

from longreward.builtin.offline_judge.lexical import sentence


class DuplicateFilter:
    """Questions so far; two are alike where they share more than `limit` of all their words, told by their stems."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._terms: dict[str, frozenset[str]] = {}

    def like(self, question: str) -> str | None:
        """The first question that this one repeats."""
        terms = _terms(question)
        for other, known in self._terms.items():
            if terms == known or len(terms & known) > self._limit * len(terms | known):
                return other
        return None

    def add(self, question: str) -> None:
        """From now on this one counts."""
        self._terms[question] = _terms(question)


def _terms(question: str) -> frozenset[str]:
    """Without little words; where nothing else is in it, the whole."""
    return sentence(question).terms or frozenset({question.casefold()})
