"""Results of a study: the measures of each arm, and its differences from SFT, from LongReward and from the control.

All arms of a seed answer the same held-out prompts from the same SFT model. So differences are paired by prompt, and
an interval is over the documents of all seeds: it shows how certain a difference is for the trainings of these seeds.
Whether the seeds agree is reported beside it, seed by seed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from longreward.evaluation.comparison import BOUNDS, improvement
from longreward.evaluation.config import GOLD_MEASURES, MEASURES, Measure
from longreward.evaluation.example_metrics import ExampleMetrics
from longreward.evaluation.statistics import (
    DifferenceEstimate,
    Estimate,
    IntervalOptions,
    Observation,
    holm_corrected,
    mean,
    mean_difference,
)
from longreward.study.arms import CONTROL, LONGREWARD, SFT, SHORT_ONLY

REPORTED_MEASURES: tuple[Measure, ...] = tuple(name for name in MEASURES if name not in ("helpfulness", "logicality"))
JUDGED: tuple[Measure, ...] = ("reward", "faithfulness", "completeness")
"""Compared where the data has no gold facts."""
BASELINES = (SFT, CONTROL, LONGREWARD, SHORT_ONLY)
CONFIDENCE = 0.95
INTERVALS = IntervalOptions(confidence=CONFIDENCE)


@dataclass(frozen=True)
class RunResult:
    """One run's measured answers, of the SFT model and of the trained one."""

    arm: str
    seed: int
    examples: Sequence[ExampleMetrics]
    benchmarks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By model, `sft` or `dpo`: the metrics of its benchmark run."""


@dataclass(frozen=True)
class Effect:
    """The difference of one arm from another (or from SFT) in one measure, over all seeds."""

    arm: str
    against: str
    decoding: str
    measure: Measure
    difference: DifferenceEstimate
    by_seed: Mapping[int, float]

    @property
    def gain(self) -> int:
        """1 where the arm is significantly better, -1 where it is significantly worse, else 0."""
        return improvement(self.measure, self.difference)

    @property
    def test(self) -> tuple[frozenset[str], str, Measure]:
        """The hypothesis test; an effect and its reverse share one."""
        return frozenset((self.arm, self.against)), self.decoding, self.measure

    def reversed(self) -> "Effect":
        """Return the difference of the other arm from this one."""
        by_seed = {seed: -value for seed, value in self.by_seed.items()}
        return Effect(self.against, self.arm, self.decoding, self.measure, self.difference.reversed(), by_seed)


@dataclass(frozen=True)
class StudyResults:
    """`means[arm, decoding][measure]`, where `sft` counts as an arm, and the effects."""

    means: Mapping[tuple[str, str], Mapping[Measure, Estimate]]
    effects: Sequence[Effect]
    seeds: tuple[int, ...]
    benchmarks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By arm: its metrics as means over the seeds."""

    @property
    def tests(self) -> int:
        """The number of tests that p-values are corrected for."""
        decisive = decisive_measures(self.effects)
        return len({effect.test for effect in self.effects if effect.measure in decisive})

    def effect(self, arm: str, against: str, decoding: str, measure: Measure) -> Effect | None:
        """Return one effect; None where it was not measured."""
        key = (arm, against, decoding, measure)
        return next((e for e in self.effects if (e.arm, e.against, e.decoding, e.measure) == key), None)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        means = [
            {"arm": arm, "decoding": decoding, **{measure: asdict(mean) for measure, mean in by_measure.items()}}
            for (arm, decoding), by_measure in self.means.items()
        ]
        effects = [asdict(effect) for effect in self.effects]
        return {"seeds": list(self.seeds), "means": means, "effects": effects, "benchmarks": self.benchmarks}


Observations = dict[tuple[str, Measure], list[tuple[int, Observation]]]
"""By decoding and measure: the seed and the observation of each answer."""


def summarize_runs(runs: Iterable[RunResult]) -> StudyResults:
    """Return the means of each arm, and its effects against each of BASELINES."""
    runs = list(runs)
    first_of_seed = {run.seed: run for run in reversed(runs)}  # all runs of a seed have the same SFT model
    observations = {SFT: _observations(first_of_seed.values(), "sft")}
    for run in runs:
        observations.setdefault(run.arm, _observations((r for r in runs if r.arm == run.arm), "dpo"))
    means: dict[tuple[str, str], dict[Measure, Estimate]] = {}
    for arm, by_key in observations.items():
        for (decoding, measure), values in by_key.items():
            of_decoding = means.setdefault((arm, decoding), {})
            if measure in REPORTED_MEASURES:
                estimate = mean([value for _, value in values], INTERVALS, bounds=BOUNDS[measure])
                assert estimate is not None, "a key has at least one observation"
                of_decoding[measure] = estimate
    effects = [
        effect
        for arm in observations
        for against in BASELINES
        if arm not in (against, SFT) and against in observations
        for effect in _effects(arm, against, observations)
    ]
    benchmarks = {SFT: _mean_metrics(run.benchmarks.get("sft", {}) for run in first_of_seed.values())}
    for arm in observations:
        if arm != SFT:
            benchmarks[arm] = _mean_metrics(run.benchmarks.get("dpo", {}) for run in runs if run.arm == arm)
    seeds = tuple(dict.fromkeys(run.seed for run in runs))
    return StudyResults(means, _correct_p_values(effects), seeds, {arm: m for arm, m in benchmarks.items() if m})


def decisive_measures(effects: Iterable[Effect]) -> tuple[Measure, ...]:
    """Return the measures that conclusions rest on: gold facts if there are any, else the judge's; and short ones."""
    has_gold = any(effect.measure in GOLD_MEASURES for effect in effects)
    return (*(GOLD_MEASURES if has_gold else JUDGED), "short")


def _observations(runs: Iterable[RunResult], model: str) -> Observations:
    observations: Observations = {}
    for run in runs:
        for example in run.examples:
            if example.model == model:
                for measure, value in example.values.items():
                    # A document of two seeds counts as two, since their trainings are independent.
                    observation = (run.seed, (f"{run.seed}/{example.document}", value))
                    observations.setdefault((example.decoding, measure), []).append(observation)
    return observations


def _effects(arm: str, against: str, observations: Mapping[str, Observations]) -> Iterator[Effect]:
    for key, values in observations[arm].items():
        baseline = observations[against].get(key)
        decoding, measure = key
        if baseline is None or measure not in REPORTED_MEASURES:
            continue
        seeds = {seed for seed, _ in values} & {seed for seed, _ in baseline}
        # Only common seeds: a seed without a counterpart would compare different SFT models.
        baseline, values = ([(seed, o) for seed, o in runs if seed in seeds] for runs in (baseline, values))
        difference = mean_difference(
            [observation for _, observation in baseline],
            [observation for _, observation in values],
            INTERVALS,
            bounds=BOUNDS[measure],
        )
        if difference is not None:
            by_seed = {seed: _seed_mean(values, seed) - _seed_mean(baseline, seed) for seed in sorted(seeds)}
            yield Effect(arm, against, decoding, measure, difference, by_seed)


def _seed_mean(observations: Sequence[tuple[int, Observation]], seed: int) -> float:
    values = [value for observed_seed, (_, value) in observations if observed_seed == seed]
    return sum(values) / len(values)


def _correct_p_values(effects: Sequence[Effect]) -> list[Effect]:
    """Correct the p-values of the decisive effects for their number (Holm); the others support no conclusion."""
    decisive = decisive_measures(effects)
    # An arm that is compared with another in both directions is one test, not two.
    tests = {effect.test: effect.difference for effect in effects if effect.measure in decisive}
    corrected = {
        test: difference.p_corrected
        for test, difference in zip(tests, holm_corrected(list(tests.values())), strict=True)
    }
    return [
        replace(effect, difference=replace(effect.difference, p_corrected=corrected[effect.test]))
        if effect.test in corrected
        else effect
        for effect in effects
    ]


def _mean_metrics(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values_by_name: dict[str, list[float]] = {}
    for metrics in runs:
        for name, value in metrics.items():
            values_by_name.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in values_by_name.items()}
