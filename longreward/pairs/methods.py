"""The pair methods: settings, and the table of methods that need only the sampled responses.

longreward  best against worst by the rewards of LongReward               selection.py
srm         best against worst by a short-context reward model            srm.py
contrast    the reference answer is chosen, a sampled one rejected        simple_methods.py
pairwise    the judge compares two responses at a time, in both orders    pairwise.py
consensus   most against least agreement with the other responses         simple_methods.py
random      two responses by seed, as a control                           simple_methods.py
given       pairs of an external data set
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Self

from pydantic import model_validator

from longreward.errors import ConfigError
from longreward.judge.budget import BudgetConfig
from longreward.pairs.config import SelectionConfig
from longreward.pairs.member_margins import panel_measures
from longreward.pairs.outcomes import NoPair, Outcome
from longreward.pairs.pairwise import PairwiseConfig
from longreward.pairs.simple_methods import consensus_pair, contrast_pair, random_pair
from longreward.pairs.srm import SrmConfig
from longreward.records import Example, Response

PairMethod = Literal["longreward", "srm", "contrast", "pairwise", "consensus", "random", "given"]
MakePair = Callable[[SelectionConfig, Example, Iterable[Response]], Outcome]
"""A pair method that needs only the sampled responses of an example."""
SIMPLE_METHODS: Mapping[PairMethod, MakePair] = {
    "contrast": contrast_pair,
    "consensus": consensus_pair,
    "random": random_pair,
}
REWARD_METHODS: frozenset[PairMethod] = frozenset({"longreward", "srm"})
"""Methods that give rewards."""


class PairConfig(SelectionConfig):
    """How preference pairs are made."""

    method: PairMethod = "longreward"
    """How the chosen and the rejected response are found: by the judge's scores (longreward), by a short-context reward
    model (srm), the reference answer against a sampled one (contrast), by judge comparisons of two responses
    (pairwise), by agreement with the other responses (consensus), or at random (random); given: use `prepare.pairs`.
    Only longreward needs scores: set `score.strategy: none` for the others."""
    srm: SrmConfig = SrmConfig()
    """For pair.method: srm."""
    pairwise: PairwiseConfig = PairwiseConfig()
    """For pair.method: pairwise."""
    budget: BudgetConfig = BudgetConfig()
    """Limits of the judge calls of pairwise; the stage stops cleanly when one is reached."""

    @property
    def needs_scores(self) -> bool:
        """Whether the method uses the judge's scores."""
        return self.method == "longreward"

    @model_validator(mode="after")
    def _best_second_needs_rewards(self) -> Self:
        if self.selection == "best_second" and self.method not in REWARD_METHODS:
            raise ValueError(
                f"selection is best_second, but {self.method} gives no rewards to rank by: set it to best_worst"
            )
        return self


def require_decided(outcomes: Iterable[Outcome]) -> None:
    """Raise ConfigError if a response that adaptive scoring left open may be in a pair.

    Dropping these prompts would bias the selection of prompts.
    """
    # Other reasons do not depend on the strategy: full scoring would give no pair either.
    undecided = [
        outcome for outcome in outcomes if isinstance(outcome, NoPair) and outcome.reason == "needs the full strategy"
    ]
    if undecided:
        raise ConfigError(
            f"{len(undecided)} prompts, such as {undecided[0].example_id}, were scored with score.strategy: adaptive, "
            "which is enough for equal weights, all responses and best_worst. With the present pair.weights, "
            "pair.responses and pair.selection, a response without a score may be in their pairs. Set score.strategy: "
            "full; the ledger has the replies so far"
        )


def pair_metrics(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Return counts by outcome, the mean margin, mean length (characters) and truncation of both sides, and the
    metrics of a panel of judges. Holds no outcome.
    """
    reasons, totals = Counter[str](), defaultdict[str, float](float)
    for outcome in outcomes:
        if isinstance(outcome, NoPair):
            reasons[outcome.reason] += 1
            continue
        totals["pairs"] += 1
        if outcome.margin is not None:
            totals["margins"] += 1
            totals["margin"] += outcome.margin
        for side, response in (("chosen", outcome.chosen), ("rejected", outcome.rejected)):
            totals[f"{side}_characters"] += len(response.text)
            totals[f"{side}_truncated"] += response.truncated
        for name, value in panel_measures(outcome).items():
            totals[name] += value
    pairs, rated = totals["pairs"], totals["panel/rated"]
    metrics = {f"without_pair/{reason.replace(' ', '_')}": float(count) for reason, count in sorted(reasons.items())}
    metrics |= {"pairs": pairs, "without_pair": float(reasons.total())}
    if totals["margins"]:
        metrics["margin_mean"] = totals["margin"] / totals["margins"]
    if rated:
        metrics["panel/disagreement_mean"] = totals["panel/disagreement"] / rated
        metrics |= {name: totals[name] for name in ("panel/disputed", "panel/reversed")}
    if pairs:
        metrics |= {f"{side}_characters_mean": totals[f"{side}_characters"] / pairs for side in ("chosen", "rejected")}
        metrics |= {name: totals[name] for name in ("chosen_truncated", "rejected_truncated")}
    return metrics
