"""What the study's runs show: every arm's measures, and its differences from SFT, from LongReward and from chance.

All arms of a seed answer the same held-out prompts from the same SFT model. So differences are taken on the same
prompts, and an interval is over the documents of all seeds: it says how sure a difference is for these seeds'
trainings. That the seeds agree is shown beside it, seed by seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from longreward.evaluation.comparison import BOUNDS, improvement
from longreward.evaluation.config import GOLD_MEASURES, MEASURES, Measure
from longreward.evaluation.example_metrics import ExampleMetrics
from longreward.evaluation.statistics import (
    DifferenceEstimate,
    Estimate,
    Observation,
    holm_corrected,
    mean,
    mean_difference,
)
from longreward.study.arms import CONTROL, LONGREWARD, SFT, SHORT_ONLY

SHOWN: tuple[Measure, ...] = tuple(name for name in MEASURES if name not in ("helpfulness", "logicality"))
JUDGED: tuple[Measure, ...] = ("reward", "faithfulness", "completeness")
"""Compared where the data has no gold facts."""
AGAINST = (SFT, CONTROL, LONGREWARD, SHORT_ONLY)
RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class RunResult:
    """One run's measured answers, of the SFT model and of the trained one, and what benchmarks say of either."""

    arm: str
    seed: int
    taken: Sequence[ExampleMetrics]
    benchmarks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By model, `sft` or `dpo`: the metrics of its run."""


@dataclass(frozen=True)
class Effect:
    """An arm's measure against another arm's (or SFT's), over all seeds; `by_seed` are the differences seed by seed."""

    arm: str
    against: str
    decoding: str
    measure: Measure
    difference: DifferenceEstimate
    by_seed: Mapping[int, float]

    @property
    def gain(self) -> int:
        """1 where the arm is shown to be better, -1 where it is shown to be worse, else 0."""
        return improvement(self.measure, self.difference)

    def turned(self) -> "Effect":
        """The other arm against this one."""
        flipped = self.difference.reversed()
        by_seed = {seed: -value for seed, value in self.by_seed.items()}
        return Effect(self.against, self.arm, self.decoding, self.measure, flipped, by_seed)


@dataclass(frozen=True)
class StudyResults:
    """`means[arm, decoding][measure]`; `sft` is an arm, too."""

    means: Mapping[tuple[str, str], Mapping[Measure, Estimate]]
    effects: Sequence[Effect]
    seeds: tuple[int, ...]
    benchmarks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of each arm: its metrics, as means over the seeds."""

    @property
    def tests(self) -> int:
        """The number of comparisons that p-values are corrected for."""
        decisive = decisive_measures(self.effects)
        return len({_test_of(effect) for effect in self.effects if effect.measure in decisive})

    def effect(self, arm: str, against: str, decoding: str, measure: Measure) -> Effect | None:
        """The one effect; None where it was not measured."""
        wanted = (arm, against, decoding, measure)
        return next((e for e in self.effects if (e.arm, e.against, e.decoding, e.measure) == wanted), None)

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        means = [
            {"arm": arm, "decoding": decoding, **{measure: asdict(each) for measure, each in of.items()}}
            for (arm, decoding), of in self.means.items()
        ]
        effects = [asdict(effect) for effect in self.effects]
        return {"seeds": list(self.seeds), "means": means, "effects": effects, "benchmarks": self.benchmarks}


def summarize_runs(runs: Iterable[RunResult]) -> StudyResults:
    """The means of each arm, and its effects against SFT, the control, LongReward and short preferences alone."""
    listed = list(runs)
    seeds = tuple(dict.fromkeys(run.seed for run in listed))
    observed = {run.arm: _observations([r for r in listed if r.arm == run.arm], "dpo") for run in listed}
    first_of_seed = {run.seed: run for run in reversed(listed)}
    observed = {SFT: _observations(list(first_of_seed.values()), "sft"), **observed}
    means = {
        (arm, decoding): {m: _mean(of[at, m], m) for at, m in of if at == decoding and m in SHOWN}
        for arm, of in observed.items()
        for decoding in dict.fromkeys(at for at, _ in of)
    }
    effects = [
        effect
        for arm in observed
        for against in AGAINST
        if arm not in (against, SFT) and against in observed
        for effect in _effects(arm, against, observed)
    ]
    benchmarks = {SFT: _averages(run.benchmarks.get("sft", {}) for run in first_of_seed.values())}
    for arm in observed:
        if arm != SFT:
            benchmarks[arm] = _averages(run.benchmarks.get("dpo", {}) for run in listed if run.arm == arm)
    return StudyResults(means, _correct(effects), seeds, {arm: of for arm, of in benchmarks.items() if of})


def decisive_measures(effects: Iterable[Effect]) -> tuple[Measure, ...]:
    """Return what arms are compared in: what is known to be right, else the judge's scores; and short instructions."""
    has_gold = any(effect.measure in GOLD_MEASURES for effect in effects)
    return (*(GOLD_MEASURES if has_gold else JUDGED), "short")


def _correct(effects: Sequence[Effect]) -> list[Effect]:
    """Correct the p-values of the decisive effects for their number; the others are no claims and keep theirs."""
    decisive = decisive_measures(effects)
    # Two arms that are both compared with all others are listed in both directions: that is one test.
    tests = {_test_of(effect): effect.difference for effect in effects if effect.measure in decisive}
    p_values = {key: each.p_corrected for key, each in zip(tests, holm_corrected(list(tests.values())), strict=True)}
    return [
        replace(effect, difference=replace(effect.difference, p_corrected=p_values[_test_of(effect)]))
        if effect.measure in decisive
        else effect
        for effect in effects
    ]


def _test_of(effect: Effect) -> tuple[frozenset[str], str, Measure]:
    return frozenset((effect.arm, effect.against)), effect.decoding, effect.measure


def _averages(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.items():
            taken.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in taken.items()}


ByPlace = dict[tuple[str, Measure], list[tuple[int, Observation]]]


def _observations(runs: Sequence[RunResult], model: str) -> ByPlace:
    """By decoding and measure: the seed, and (seed and document, value) of each answer."""
    found: ByPlace = {}
    for run in runs:
        for taken in run.taken:
            if taken.model == model:
                for measure, value in taken.values.items():
                    place = (run.seed, (f"{run.seed}/{taken.document}", value))
                    found.setdefault((taken.decoding, measure), []).append(place)
    return found


def _effects(arm: str, against: str, observed: Mapping[str, ByPlace]) -> Iterable[Effect]:
    mine, theirs = observed[arm], observed[against]
    for place in mine:
        if place not in theirs or place[1] not in SHOWN:
            continue
        common = {seed for seed, _ in mine[place]} & {seed for seed, _ in theirs[place]}
        sides = [[each for each in side if each[0] in common] for side in (theirs[place], mine[place])]
        change = mean_difference(
            *([value for _, value in side] for side in sides), bounds=BOUNDS[place[1]], **_SETTINGS
        )
        if change is not None:
            by_seed = {seed: _average(sides[1], seed) - _average(sides[0], seed) for seed in sorted(common)}
            yield Effect(arm, against, *place, change, by_seed)


def _average(side: Sequence[tuple[int, Observation]], seed: int) -> float:
    values = [value for at, (_, value) in side if at == seed]
    return sum(values) / len(values)


def _mean(places: Sequence[tuple[int, Observation]], measure: Measure) -> Estimate:
    found = mean([observation for _, observation in places], bounds=BOUNDS[measure], **_SETTINGS)
    assert found is not None, "a place is made by its first observation"
    return found


_SETTINGS: dict[str, Any] = {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": 0}
