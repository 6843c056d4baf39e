"""Compare the SFT model with the trained model, measure by measure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

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

T = TypeVar("T")
Observations = Mapping[Measure, list[Observation]]
LOWER_IS_BETTER: tuple[Measure, ...] = ("unsupported",)
# A longer answer is neither better nor worse: its length is reported, not tested.
NEUTRAL_MEASURES: tuple[Measure, ...] = ("tokens",)
BOUNDS: Mapping[Measure, Bounds] = {
    **dict.fromkeys(GOLD_MEASURES, (0.0, 1.0)),
    **dict.fromkeys(JUDGED_MEASURES, (0.0, 10.0)),
    "short": (0.0, 1.0),
    "tokens": UNBOUNDED,
}


@dataclass(frozen=True)
class MeasureChange:
    """One measure in one comparison of two models, or of one model in two runs; `difference` is second minus first."""

    model: str
    comparison: str
    measure: Measure
    first: Estimate
    second: Estimate
    difference: DifferenceEstimate

    @property
    def improvement(self) -> int:
        """1 if the second is shown to be better, -1 if it is shown to be worse, otherwise 0; 0 for neutral measures."""
        return improvement(self.measure, self.difference)


def improvement(measure: Measure, difference: DifferenceEstimate) -> int:
    """Return 1 for a significant change for the better, -1 for the worse, otherwise 0, as for neutral measures."""
    if measure in NEUTRAL_MEASURES or not difference.is_shown:
        return 0
    sign = 1 if difference.value > 0 else -1
    return -sign if measure in LOWER_IS_BETTER else sign


def correct_changes(changes: Sequence[MeasureChange]) -> list[MeasureChange]:
    """Correct the p-values of a report's changes for their number; neutral measures are not tested and do not count."""
    tested = [change for change in changes if change.measure not in NEUTRAL_MEASURES]
    differences = iter(holm_corrected([change.difference for change in tested]))
    return [
        change if change.measure in NEUTRAL_MEASURES else replace(change, difference=next(differences))
        for change in changes
    ]


def decodings(config: EvaluateConfig) -> tuple[Decoding, ...]:
    """Return the configured decodings, without duplicates."""
    temperatures = dict.fromkeys(config.temperatures)
    return tuple(Decoding(temperature, config.samples if temperature > 0 else 1) for temperature in temperatures)


def split_by_decoding(config: EvaluateConfig, answers: Sequence[T]) -> Iterator[tuple[Decoding, Sequence[T]]]:
    """Yield the answers to one prompt that are of each decoding; they lie one decoding after the other.

    >>> config = EvaluateConfig(temperatures=(1.0, 0.0), samples=2)
    >>> [(decoding.name, *answers) for decoding, answers in split_by_decoding(config, "abc")]
    [('t1', 'a', 'b'), ('greedy', 'c')]
    """
    start = 0
    for decoding in decodings(config):
        yield decoding, answers[start : start + decoding.samples]
        start += decoding.samples


def comparisons(config: EvaluateConfig) -> Iterable[tuple[str, str, str]]:
    """Yield (label, SFT decoding, DPO decoding): equal decodings, then DPO at 1 against SFT at lower temperatures."""
    names = [decoding.name for decoding in decodings(config)]
    if config.short.source is not None and GREEDY not in names:
        names.append(GREEDY)
    yield from ((name, name, name) for name in names)
    # SFT at a lower temperature is the control for mere sharpening of the distribution (see report.py).
    if "t1" in names:
        for decoding in decodings(config):
            if 0 < decoding.temperature < 1:
                yield f"t1 against {decoding.name}", decoding.name, "t1"


def compare(
    config: EvaluateConfig, first: Observations, second: Observations, *, model: str, comparison: str
) -> Iterable[MeasureChange]:
    """Yield the change of each measure that both sides have; p-values are not corrected yet."""
    for measure in MEASURES:
        if measure in first and measure in second:
            options, bounds = config.interval_options, BOUNDS[measure]
            first_mean, second_mean = (mean(side[measure], options, bounds=bounds) for side in (first, second))
            difference = mean_difference(first[measure], second[measure], options, bounds=bounds)
            if first_mean and second_mean and difference:
                yield MeasureChange(model, comparison, measure, first_mean, second_mean, difference)


def means(config: EvaluateConfig, observations: Observations) -> dict[Measure, Estimate]:
    """Return the mean of each measure of one model and decoding."""
    estimates = {
        measure: mean(values, config.interval_options, bounds=BOUNDS[measure])
        for measure, values in observations.items()
    }
    return {measure: estimate for measure, estimate in estimates.items() if estimate}
