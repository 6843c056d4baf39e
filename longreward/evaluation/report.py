"""The comparison of the SFT model with the trained one, and what it shows: learning, or only a sharper distribution.

At temperature 1 a model gains by merely putting more weight on what it already preferred. So three comparisons stand
side by side: both at 1; the trained model at 1 against SFT at 0.5; both greedy. Only the last two show learning. Gold
measures decide where there are any, else the reward.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from longreward.evaluation.bootstrap import Estimate, Observation, difference, mean
from longreward.evaluation.config import GOLD_MEASURES, MEASURES, EvaluateConfig, Measure
from longreward.evaluation.measuring import Decoding, Measured, Role

Finding = Literal["learning", "only sharpening", "no improvement", "not compared"]
LOWER_IS_BETTER: tuple[Measure, ...] = ("unsupported",)
NEUTRAL: tuple[Measure, ...] = ("tokens",)


@dataclass(frozen=True)
class Row:
    """One measure in one comparison; `difference` is dpo minus sft."""

    comparison: str
    measure: Measure
    sft: Estimate
    dpo: Estimate
    difference: Estimate

    @property
    def gain(self) -> int:
        """1 where the trained model is better beyond the interval, -1 where it is worse, else 0."""
        if self.measure in NEUTRAL or not self.difference.excludes_zero:
            return 0
        sign = 1 if self.difference.value > 0 else -1
        return -sign if self.measure in LOWER_IS_BETTER else sign


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

    def figures(self, role: Role) -> dict[str, float]:
        """One model's metrics, under the same names whichever model it is: `recall/t1`, `reward/greedy`, …"""
        figures: dict[str, float] = {}
        for (whose, decoding), estimates in self.means.items():
            if whose == role:
                figures |= {f"{measure}/{decoding}": estimate.value for measure, estimate in estimates.items()}
                figures[f"unscored/{decoding}"] = float(self.unscored[whose, decoding])
        return figures

    def headline(self) -> dict[str, float]:
        """The differences, as the run's own metrics: `difference/recall/t1`, with `_low` and `_high`."""
        figures: dict[str, float] = {"champion": float(self.champion)}
        for row in self.rows:
            name = f"difference/{row.measure}/{row.comparison.replace(' ', '_')}"
            figures |= {
                name: row.difference.value,
                f"{name}_low": row.difference.low,
                f"{name}_high": row.difference.high,
            }
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


def decodings(config: EvaluateConfig) -> tuple[Decoding, ...]:
    """The configured decodings, without repeats."""
    temperatures = dict.fromkeys(config.temperatures)
    return tuple(Decoding(t, config.samples if t > 0 else 1) for t in temperatures)


def summarise(config: EvaluateConfig, measured: Iterable[Measured]) -> Evaluation:
    """Means of each model and decoding, the three comparisons, the finding and the champion rule."""
    observations: dict[tuple[Role, str], dict[Measure, list[Observation]]] = {}
    answers: dict[tuple[Role, str], int] = {}
    unscored: dict[tuple[Role, str], int] = {}
    for one in measured:
        place = (one.role, one.decoding)
        answers[place] = answers.get(place, 0) + 1
        unscored[place] = unscored.get(place, 0) + ("reward" not in one.values)
        taken = observations.setdefault(place, {})
        for name, value in one.values.items():
            taken.setdefault(name, []).append((one.document_id, value))
    rows = tuple(
        row
        for label, sft, dpo in _comparisons(config)
        for row in _compare(config, label, observations.get(("sft", sft), {}), observations.get(("dpo", dpo), {}))
    )
    finding, sentence = _finding(rows)
    champion, reason = _champion(config, rows)
    return Evaluation(
        rows=rows,
        finding=finding,
        sentence=sentence,
        champion=champion,
        champion_reason=reason,
        means={place: _means(config, taken) for place, taken in observations.items()},
        answers=answers,
        unscored=unscored,
    )


def _comparisons(config: EvaluateConfig) -> Iterable[tuple[str, str, str]]:
    """(label, SFT's decoding, the trained model's decoding): like with like, then 1 against each lower temperature."""
    names = [decoding.name for decoding in decodings(config)]
    yield from ((name, name, name) for name in names)
    if "t1" in names:
        for decoding in decodings(config):
            if 0 < decoding.temperature < 1:
                yield f"t1 against {decoding.name}", decoding.name, "t1"


def _compare(
    config: EvaluateConfig,
    label: str,
    sft: Mapping[Measure, list[Observation]],
    dpo: Mapping[Measure, list[Observation]],
) -> Iterable[Row]:
    settings: Any = _settings(config)
    for name in MEASURES:
        if name in sft and name in dpo:
            first, second = mean(sft[name], **settings), mean(dpo[name], **settings)
            change = difference(sft[name], dpo[name], **settings)
            if first and second and change:
                yield Row(label, name, first, second, change)


def _means(config: EvaluateConfig, taken: Mapping[Measure, list[Observation]]) -> dict[Measure, Estimate]:
    settings: Any = _settings(config)
    estimates = {name: mean(observed, **settings) for name, observed in taken.items()}
    return {name: estimate for name, estimate in estimates.items() if estimate}


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    return {"resamples": config.bootstrap_resamples, "confidence": config.confidence, "seed": config.seed}


def _finding(rows: Sequence[Row]) -> tuple[Finding, str]:
    """What the rows show, and the sentence that says so."""
    decisive = [row for row in rows if row.measure in GOLD_MEASURES]
    decisive = decisive or [row for row in rows if row.measure == "reward"]
    if not decisive:
        return "not compared", "Nothing was compared: one of the two models has no measured answers."
    by_label: dict[str, list[Row]] = {}
    for row in decisive:
        by_label.setdefault(row.comparison, []).append(row)
    better = [label for label, of in by_label.items() if max(r.gain for r in of) > 0 and min(r.gain for r in of) >= 0]
    beyond = {label: label in better for label in by_label if label == "greedy" or " against " in label}
    finding: Finding = "no improvement"
    if better:
        finding = "learning" if any(beyond.values()) else "only sharpening"
    said = {
        "learning": "Learning is shown: the trained model is better than the SFT model where a sharper distribution "
        f"alone does not help, {_gains(by_label, beyond)}.",
        "only sharpening": f"Only sharpening is shown: the trained model is better at {', '.join(better)}, but not "
        f"where a sharper distribution alone does not help ({', '.join(beyond) or 'not measured'}).",
        "no improvement": "No improvement is shown: nowhere is a measure better beyond its interval without another "
        "one being worse.",
    }[finding]
    missed = [label for label, shown in beyond.items() if not shown]
    if finding == "learning" and missed:
        said += f" It is not better at {', '.join(missed)}."
    return finding, f"{said} {_lengths(rows)}".strip()


def _gains(by_label: Mapping[str, Sequence[Row]], beyond: Mapping[str, bool]) -> str:
    """ "greedy (exact +0.165, unsupported -0.040)" for each comparison that shows learning."""
    return " and ".join(
        f"{label} ({', '.join(f'{row.measure} {row.difference.value:+.3f}' for row in by_label[label] if row.gain)})"
        for label, shown in beyond.items()
        if shown
    )


def _lengths(rows: Sequence[Row]) -> str:
    changes = [
        f"{row.difference.value / row.sft.value:+.0%} at {row.comparison}"
        for row in rows
        if row.measure == "tokens" and row.sft.value
    ]
    return f"Answer length changed by {', '.join(changes)}." if changes else ""


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
    if rule.interval_excludes_zero and not row.difference.excludes_zero:
        return False, f"{shown}, but the interval [{row.difference.low:+.3f}, {row.difference.high:+.3f}] holds zero"
    return True, shown
