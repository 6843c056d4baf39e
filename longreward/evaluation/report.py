"""All that an evaluation came to: means, comparisons, what they show, and whether there is a new champion."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from longreward.evaluation.comparison import LOWER_IS_BETTER, Row, compare, comparisons, correct_rows, means
from longreward.evaluation.config import GOLD_MEASURES, EvaluateConfig, Measure
from longreward.evaluation.effect_summary import Finding, summarize_effect
from longreward.evaluation.measures import AnswerMeasures, Decoding
from longreward.evaluation.statistics import Estimate, Observation, format_p
from longreward.records import Role


@dataclass(frozen=True)
class Evaluation:
    """All rows, the finding in words, and whether the champion rule is met."""

    rows: tuple[Row, ...]
    finding: Finding
    sentence: str
    champion: bool
    champion_reason: str
    means: Mapping[tuple[Role, str], Mapping[Measure, Estimate]]
    answers: Mapping[tuple[Role, str], int]
    unscored: Mapping[tuple[Role, str], int]
    truncated: Mapping[tuple[Role, str], int]
    """Answers that reached the limit of tokens before they ended."""

    def figures(self, role: Role) -> dict[str, float]:
        """One model's metrics, under the same names whichever model it is: `recall/t1`, `reward/greedy`, …"""
        figures: dict[str, float] = {}
        for (whose, decoding), estimates in self.means.items():
            if whose == role:
                figures |= {f"{measure}/{decoding}": estimate.value for measure, estimate in estimates.items()}
                figures[f"unscored/{decoding}"] = float(self.unscored[whose, decoding])
                figures[f"truncated/{decoding}"] = float(self.truncated[whose, decoding])
        return figures

    def headline(self) -> dict[str, float]:
        """The differences that matter most, with their intervals: `difference/exact/greedy`, `…_low`, `…_high`."""
        figures: dict[str, float] = {"champion": float(self.champion)}
        for row in self.rows:
            if row.comparison in ("t1", "greedy") and row.measure in (*GOLD_MEASURES, "reward", "short"):
                name = f"difference/{row.measure}/{row.comparison}"
                change = row.difference
                figures |= {name: change.value, f"{name}_low": change.low, f"{name}_high": change.high}
        return figures

    def as_json(self) -> dict[str, Any]:
        """The table as plain data."""
        return {
            "finding": self.finding,
            "sentence": self.sentence,
            "champion": self.champion,
            "champion_reason": self.champion_reason,
            "rows": [asdict(row) for row in self.rows],
            "sft": self.figures("sft"),
            "dpo": self.figures("dpo"),
        }


def summarise(config: EvaluateConfig, measured: Iterable[AnswerMeasures]) -> Evaluation:
    """Means of each model and decoding, the three comparisons, the finding and the champion rule."""
    observations: dict[tuple[Role, str], dict[Measure, list[Observation]]] = {}
    answers: dict[tuple[Role, str], int] = {}
    unscored: dict[tuple[Role, str], int] = {}
    truncated: dict[tuple[Role, str], int] = {}
    for one in measured:
        place = (one.role, one.decoding)
        judged = "short" not in one.values
        answers[place] = answers.get(place, 0) + judged
        unscored[place] = unscored.get(place, 0) + (judged and "reward" not in one.values)
        truncated[place] = truncated.get(place, 0) + (judged and one.response.truncated)
        taken = observations.setdefault(place, {})
        for name, value in one.values.items():
            taken.setdefault(name, []).append((one.document_id, value))
    rows = correct_rows(
        [
            row
            for label, sft, dpo in comparisons(config)
            for row in compare(config, label, observations.get(("sft", sft), {}), observations.get(("dpo", dpo), {}))
        ]
    )
    finding, sentence = summarize_effect(rows)
    champion, reason = _champion(config, rows)
    return Evaluation(
        rows=rows,
        finding=finding,
        sentence=sentence,
        champion=champion,
        champion_reason=reason,
        means={place: means(config, taken) for place, taken in observations.items()},
        answers=answers,
        unscored=unscored,
        truncated=truncated,
    )


def _champion(config: EvaluateConfig, rows: Iterable[Row]) -> tuple[bool, str]:
    rule = config.champion
    label = Decoding(rule.temperature, 1).name
    row = next((row for row in rows if row.comparison == label and row.measure == rule.measure), None)
    if row is None:
        return False, f"{rule.measure} was not measured at {label}"
    better = -row.difference.value if rule.measure in LOWER_IS_BETTER else row.difference.value
    shown = f"{rule.measure} at {label}: {row.sft.value:.3f} → {row.dpo.value:.3f}"
    if better <= rule.min_difference:
        return False, f"{shown}, which is no improvement by more than {rule.min_difference:g}"
    change = row.difference  # one measure, chosen in the settings: no correction for the other rows
    if rule.interval_excludes_zero and not change.is_significant:
        interval = f"[{change.low:+.3f}, {change.high:+.3f}]"
        return False, f"{shown}, which may be chance: interval {interval}, p {format_p(change.p)}"
    return True, shown
