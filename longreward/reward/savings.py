"""Count the requests and tokens that adaptive scoring saves."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from longreward.judge.usage import Price
from longreward.records import DIMENSIONS, Dimension, ScoredResponse
from longreward.reward.adaptive import NOT_NEEDED


@dataclass
class Savings:
    """Requests that adaptive scoring saved in comparison with full scoring; equal requests count once.

    The numbers of ratings, of listings and of supports of listed statements are exact. Statements that were never
    listed are estimated as the mean of the listed ones, tokens as the mean of the dimension's calls.
    """

    responses: int = 0
    """Responses with bounds instead of a reward."""
    requests: Counter[Dimension] = field(default_factory=Counter)
    """Saved requests, without unlisted statements."""
    listed: int = 0
    """Texts whose statements were listed."""
    statements: int = 0
    """Listed statements; equal ones of a prompt count once."""
    unlisted: int = 0
    """Texts whose statements were not listed."""
    calls: Counter[Dimension] = field(default_factory=Counter)
    prompt_tokens: Counter[Dimension] = field(default_factory=Counter)
    completion_tokens: Counter[Dimension] = field(default_factory=Counter)

    def add(self, responses: Sequence[ScoredResponse]) -> None:
        """Add the responses to one example."""
        self.responses += sum(not scored.complete and scored.reward_bounds() is not None for scored in responses)
        verified: set[str] = set()
        unverified: set[str] = set()
        # Equal texts share their requests, so each text counts once.
        for scored in {scored.response.text: scored for scored in responses}.values():
            for dimension, verdict in scored.verdicts.items():
                self.calls[dimension] += verdict.calls
                self.prompt_tokens[dimension] += verdict.prompt_tokens
                self.completion_tokens[dimension] += verdict.completion_tokens
                self.requests[dimension] += verdict.bounds is not None and not verdict.statements
            faithfulness = scored.verdicts["faithfulness"]
            self.listed += bool(faithfulness.statements)
            self.unlisted += faithfulness.bounds is not None and not faithfulness.statements
            for statement in faithfulness.statements:
                # An unreadable support has another reason: its request was sent.
                is_open = statement.support is None and (statement.reason or "").startswith(NOT_NEEDED)
                (unverified if is_open else verified).add(statement.text)
        self.statements += len(verified | unverified)
        self.requests["faithfulness"] += len(unverified - verified)

    def metrics(self) -> dict[str, float]:
        """Return the metrics; empty if nothing was saved."""
        if not self.requests.total():
            return {}
        tokens = sum(prompt + completion for prompt, completion in self._tokens().values())
        return {
            "not_needed": float(self.responses),
            "saved/requests": float(self.requests.total()),
            "saved/requests_estimated": float(self._estimated_requests().total()),
            "saved/tokens_estimated": float(round(tokens)),
        }

    def money(self, price_for: Callable[[Dimension], Price | None]) -> dict[str, float]:
        """Return the cost of the saved tokens as a metric; empty if nothing was saved or a price is unknown."""
        prices = {dimension: price_for(dimension) for dimension in DIMENSIONS}
        if not self.requests.total() or None in prices.values():
            return {}
        tokens = self._tokens()
        saved = sum(price.cost(*tokens[dimension]) for dimension, price in prices.items() if price is not None)
        return {"saved/money_estimated": saved}

    def _estimated_requests(self) -> Counter[Dimension]:
        # max(…, 1): without any listed text the estimate is 0.
        unlisted_statements = self.unlisted * self.statements / max(self.listed, 1)
        return self.requests + Counter[Dimension]({"faithfulness": round(unlisted_statements)})

    def _tokens(self) -> dict[Dimension, tuple[float, float]]:
        """Return saved prompt and completion tokens: the number of requests times the mean of the dimension's calls."""
        ratio = {d: count / max(self.calls[d], 1) for d, count in self._estimated_requests().items()}
        return {
            d: (ratio.get(d, 0) * self.prompt_tokens[d], ratio.get(d, 0) * self.completion_tokens[d])
            for d in DIMENSIONS
        }
