"""What the strategy `extremes` spared: questions of the full strategy that were not asked, equal ones counted once.

Ratings, lists of statements and the supports of listed statements are known numbers. How many statements a response
makes that was never asked for them, nobody knows: they are counted as the mean of those listed, and that figure stands
apart as an estimate. So do tokens, a question of a dimension counted as its mean call.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from longreward.judge.prices import Price
from longreward.records import DIMENSIONS, Dimension, ScoredResponse, Statement
from longreward.reward.faithfulness import NOT_NEEDED


@dataclass
class Savings:
    """Counts over all prompts taken in."""

    responses: int = 0
    """Responses with bounds in place of a score."""
    questions: Counter[Dimension] = field(default_factory=Counter)
    """Not asked, as far as they are known."""
    listed: int = 0
    statements: int = 0
    unlisted: int = 0
    """Texts whose statements were listed, how many they were (equal ones of a prompt once), and texts never asked."""
    calls: Counter[Dimension] = field(default_factory=Counter)
    prompt: Counter[Dimension] = field(default_factory=Counter)
    completion: Counter[Dimension] = field(default_factory=Counter)
    """Tokens of the calls."""

    def count(self, responses: Sequence[ScoredResponse]) -> None:
        """Takes in the responses of one prompt."""
        self.responses += sum(not one.complete and one.bounds() is not None for one in responses)
        made: set[str] = set()
        unasked: set[str] = set()
        for one in {one.response.text: one for one in responses}.values():
            for dimension, verdict in one.verdicts.items():
                self.calls[dimension] += verdict.calls
                self.prompt[dimension] += verdict.prompt_tokens
                self.completion[dimension] += verdict.completion_tokens
                self.questions[dimension] += verdict.bounds is not None and not verdict.statements
            statements = one.verdicts["faithfulness"].statements
            self.listed += bool(statements)
            self.unlisted += one.verdicts["faithfulness"].bounds is not None and not statements
            for statement in statements:
                (unasked if _unasked(statement) else made).add(statement.text)
        self.statements += len(made | unasked)
        self.questions["faithfulness"] += len(unasked - made)

    def figures(self) -> dict[str, float]:
        """As metrics; empty where nothing was spared."""
        if not self.questions.total():
            return {}
        tokens = sum(prompt + completion for prompt, completion in self._tokens().values())
        return {
            "not_needed": float(self.responses),
            "saved/questions": float(self.questions.total()),
            "saved/questions_estimated": float(self._guessed().total()),
            "saved/tokens_estimated": float(round(tokens)),
        }

    def money(self, price_of: Callable[[Dimension], Price | None]) -> dict[str, float]:
        """What the spared tokens would have cost, as a metric; empty where nothing was spared or a price is unknown."""
        prices = {dimension: price_of(dimension) for dimension in DIMENSIONS}
        if not self.questions.total() or None in prices.values():
            return {}
        tokens = self._tokens()
        saved = sum(price.cost(*tokens[dimension]) for dimension, price in prices.items() if price is not None)
        return {"saved/money_estimated": saved}

    def _guessed(self) -> Counter[Dimension]:
        unknown = self.unlisted * self.statements / max(self.listed, 1)
        return self.questions + Counter[Dimension]({"faithfulness": round(unknown)})

    def _tokens(self) -> dict[Dimension, tuple[float, float]]:
        """Prompt and completion tokens spared: of each dimension as many mean calls as questions."""
        calls = {d: count / max(self.calls[d], 1) for d, count in self._guessed().items()}
        return {d: (calls.get(d, 0) * self.prompt[d], calls.get(d, 0) * self.completion[d]) for d in DIMENSIONS}


def _unasked(statement: Statement) -> bool:
    return statement.support is None and (statement.reason or "").startswith(NOT_NEEDED)
