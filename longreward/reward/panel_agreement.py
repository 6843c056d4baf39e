"""How well the judges of a panel (`judge.panel`) agree about the responses that they have rated."""

from collections.abc import Mapping
from pathlib import Path

from longreward.data.formats import read_scored
from longreward.evaluation.reliability import Level, Reliability
from longreward.evaluation.statistics import Estimate
from longreward.judge.judge import metric_name
from longreward.records import ScoredResponse
from longreward.reward.panel import member_rewards

SUPPORT, REWARD = "support", "reward"


class PanelAgreement:
    """Collects the judges' scores of each response, their votes on each statement, and their rewards.

    The agreement is Krippendorff's alpha, its interval by prompt: of scores and rewards at the interval level, of votes
    at the nominal level. With one judge there is none.
    """

    def __init__(self) -> None:
        self._reliability: dict[str, Reliability] = {}
        self._scores: dict[tuple[str, str], tuple[float, int]] = {}  # sum and count by judge and measure

    def add(self, scored: ScoredResponse) -> None:
        """Add one response."""
        prompt = scored.response.example_id
        for dimension, verdict in scored.verdicts.items():
            self._add(dimension, "interval", prompt, {member.judge: member.score for member in verdict.members})
            for statement in verdict.statements:
                self._add(SUPPORT, "nominal", prompt, statement.votes)
        self._add(REWARD, "interval", prompt, member_rewards(scored))

    def alphas(self) -> dict[str, Estimate]:
        """Return alpha of each dimension, of the support of statements and of the reward, where it is defined."""
        estimates = {name: reliability.alpha() for name, reliability in self._reliability.items()}
        return {name: estimate for name, estimate in estimates.items() if estimate is not None}

    def metrics(self) -> dict[str, float]:
        """Return alpha with its limits, and each judge's means, which show who is stricter."""
        metrics = {}
        for name, estimate in self.alphas().items():
            metrics[f"panel/alpha/{name}"] = estimate.value
            metrics |= {f"panel/alpha/{name}/low": estimate.low, f"panel/alpha/{name}/high": estimate.high}
        for (judge, name), (total, count) in self._scores.items():
            metrics[f"panel/mean/{metric_name(judge)}/{name}"] = total / count
        return metrics

    def _add(self, name: str, level: Level, prompt: str, values: Mapping[str, float | None]) -> None:
        available = {judge: value for judge, value in values.items() if value is not None}
        if not available:
            return
        self._reliability.setdefault(name, Reliability(level)).add(prompt, list(available.values()))
        for judge, value in available.items():
            total, count = self._scores.get((judge, name), (0.0, 0))
            self._scores[judge, name] = total + value, count + 1


def panel_agreement(*files: Path) -> str:
    """Return the agreement in files of scored responses on one line; "" for one judge."""
    agreement = PanelAgreement()
    for file in files:
        if file.stat().st_size:
            for scored in read_scored(file):
                agreement.add(scored)
    return format_alphas(agreement.alphas())


def format_alphas(alphas: Mapping[str, Estimate]) -> str:
    """Return the agreement on one line, as "helpfulness 0.71 [0.55, 0.83], …"."""
    return ", ".join(f"{name} {alpha.value:.2f} [{alpha.low:.2f}, {alpha.high:.2f}]" for name, alpha in alphas.items())
