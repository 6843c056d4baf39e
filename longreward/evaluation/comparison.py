"""The comparisons of the SFT model with the trained one, each measure with its interval."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from longreward.evaluation.bootstrap import Estimate, Observation, difference, mean
from longreward.evaluation.config import MEASURES, EvaluateConfig, Measure
from longreward.evaluation.measuring import GREEDY, Decoding

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
        return gain(self.measure, self.difference)


def gain(measure: Measure, change: Estimate) -> int:
    """What a change is worth: 1 better beyond its interval, -1 worse, else 0; a neutral measure is never either."""
    if measure in NEUTRAL or not change.excludes_zero:
        return 0
    sign = 1 if change.value > 0 else -1
    return -sign if measure in LOWER_IS_BETTER else sign


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
    settings: Any = _settings(config)
    for name in MEASURES:
        if name in sft and name in dpo:
            first, second = mean(sft[name], **settings), mean(dpo[name], **settings)
            change = difference(sft[name], dpo[name], **settings)
            if first and second and change:
                yield Row(label, name, first, second, change)


def means(config: EvaluateConfig, taken: Mapping[Measure, list[Observation]]) -> dict[Measure, Estimate]:
    """Each measure of one model and decoding."""
    settings: Any = _settings(config)
    estimates = {name: mean(observed, **settings) for name, observed in taken.items()}
    return {name: estimate for name, estimate in estimates.items() if estimate}


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    return {"resamples": config.bootstrap_resamples, "confidence": config.confidence, "seed": config.seed}
