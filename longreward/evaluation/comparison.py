"""The comparisons of the SFT model with the trained one, each measure with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, MEASURES, EvaluateConfig, Measure
from longreward.evaluation.intervals import UNBOUNDED, Bounds
from longreward.evaluation.measures import GREEDY, Decoding
from longreward.evaluation.statistics import (
    DifferenceEstimate,
    Estimate,
    Observation,
    holm_corrected,
    mean,
    mean_difference,
)

LOWER_IS_BETTER: tuple[Measure, ...] = ("unsupported",)
NEUTRAL_MEASURES: tuple[Measure, ...] = ("tokens",)
BOUNDS: Mapping[Measure, Bounds] = {
    **dict.fromkeys(GOLD_MEASURES, (0.0, 1.0)),
    **dict.fromkeys(JUDGED_MEASURES, (0.0, 10.0)),
    "short": (0.0, 1.0),
    "tokens": UNBOUNDED,
}


@dataclass(frozen=True)
class Row:
    """One measure in one comparison; `difference` is dpo minus sft."""

    comparison: str
    measure: Measure
    sft: Estimate
    dpo: Estimate
    difference: DifferenceEstimate

    @property
    def gain(self) -> int:
        """1 where the trained model is shown to be better, -1 where it is shown to be worse, else 0."""
        return improvement(self.measure, self.difference)


def improvement(measure: Measure, change: DifferenceEstimate) -> int:
    """Return 1 where the change is shown to be one for the better, -1 for the worse, else 0.

    A change is shown where its corrected p-value is at most 1 - confidence. A neutral measure is neither better nor
    worse.
    """
    if measure in NEUTRAL_MEASURES or not change.is_shown:
        return 0
    sign = 1 if change.value > 0 else -1
    return -sign if measure in LOWER_IS_BETTER else sign


def correct_rows(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Correct the p-values of a report's rows for their number; neutral measures make no claim and do not count."""
    counted = [row for row in rows if row.measure not in NEUTRAL_MEASURES]
    differences = iter(holm_corrected([row.difference for row in counted]))
    return tuple(row if row.measure in NEUTRAL_MEASURES else replace(row, difference=next(differences)) for row in rows)


def decodings(config: EvaluateConfig) -> tuple[Decoding, ...]:
    """The configured decodings, without repeats."""
    temperatures = dict.fromkeys(config.temperatures)
    return tuple(Decoding(t, config.samples if t > 0 else 1) for t in temperatures)


def comparisons(config: EvaluateConfig) -> Iterable[tuple[str, str, str]]:
    """(label, SFT's decoding, the trained model's decoding): like with like, then 1 against each lower temperature."""
    names = [decoding.name for decoding in decodings(config)]
    if config.short.source is not None and GREEDY not in names:
        names.append(GREEDY)
    yield from ((name, name, name) for name in names)
    if "t1" in names:
        for decoding in decodings(config):
            if 0 < decoding.temperature < 1:
                yield f"t1 against {decoding.name}", decoding.name, "t1"


def compare(
    config: EvaluateConfig,
    label: str,
    sft: Mapping[Measure, list[Observation]],
    dpo: Mapping[Measure, list[Observation]],
) -> Iterable[Row]:
    """The measures that both sides have."""
    for name in MEASURES:
        if name in sft and name in dpo:
            settings = interval_settings(config, name)
            first, second = mean(sft[name], **settings), mean(dpo[name], **settings)
            change = mean_difference(sft[name], dpo[name], **settings)
            if first and second and change:
                yield Row(label, name, first, second, change)


def means(config: EvaluateConfig, taken: Mapping[Measure, list[Observation]]) -> dict[Measure, Estimate]:
    """Each measure of one model and decoding."""
    estimates = {name: mean(observed, **interval_settings(config, name)) for name, observed in taken.items()}
    return {name: estimate for name, estimate in estimates.items() if estimate}


def interval_settings(config: EvaluateConfig, measure: Measure) -> dict[str, Any]:
    """Return the arguments of `mean` and `difference` for one measure."""
    return {
        "resamples": config.bootstrap_resamples,
        "confidence": config.confidence,
        "seed": config.seed,
        "bounds": BOUNDS[measure],
    }
