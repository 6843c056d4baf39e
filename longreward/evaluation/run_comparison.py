"""Two runs' models on held-out prompts: differences with intervals, and the prompts whose answers moved most.

Where both runs answered the same prompts, the comparison is paired by document: both sides on those prompts.
Where they share none, each side keeps its own prompts, and the intervals are those of two separate samples.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from longreward.evaluation.comparison import NEUTRAL_MEASURES, improvement, interval_settings
from longreward.evaluation.config import MEASURES, EvaluateConfig, Measure
from longreward.evaluation.example_metrics import ExampleMetrics
from longreward.evaluation.statistics import (
    DifferenceEstimate,
    Estimate,
    Observation,
    holm_corrected,
    mean,
    mean_difference,
)


@dataclass(frozen=True)
class PromptOverlap:
    """How many held-out prompts the two runs have in common."""

    both: int
    only_first: int
    only_second: int

    @property
    def sentence(self) -> str:
        """What the differences stand on."""
        if not self.both:
            return (
                f"Unpaired: the runs share no held-out prompt ({self.only_first} and {self.only_second} of their own), "
                "so differences may come from the prompts as well as from the models."
            )
        rest = ""
        if self.only_first or self.only_second:
            rest = f"; {self.only_first} and {self.only_second} that only one of them answered are left out"
        return f"Paired on the {self.both} held-out prompts that both runs answered, by document{rest}."


@dataclass(frozen=True)
class MeasureChange:
    """One measure of a model at one decoding, in the first run and in the second."""

    model: str
    decoding: str
    measure: Measure
    first: Estimate
    second: Estimate
    difference: DifferenceEstimate

    @property
    def gain(self) -> int:
        """1 where the second is shown to be better, -1 where it is shown to be worse, else 0."""
        return improvement(self.measure, self.difference)


def correct_changes(changes: Sequence[MeasureChange]) -> list[MeasureChange]:
    """Correct the p-values of all changes of a report for their number; neutral measures do not count."""
    counted = [change for change in changes if change.measure not in NEUTRAL_MEASURES]
    differences = iter(holm_corrected([change.difference for change in counted]))
    return [c if c.measure in NEUTRAL_MEASURES else replace(c, difference=next(differences)) for c in changes]


@dataclass(frozen=True)
class ChangedExample:
    """A prompt's mean measure in both runs; the ids are each run's own."""

    first_id: str
    second_id: str
    document: str
    before: float
    after: float


@dataclass(frozen=True)
class RunComparison:
    """Two runs' answers side by side."""

    first: Sequence[ExampleMetrics]
    second: Sequence[ExampleMetrics]

    @property
    def shared(self) -> PromptOverlap:
        """How the held-out prompts overlap."""
        one, other = ({taken.prompt for taken in side} for side in (self.first, self.second))
        return PromptOverlap(len(one & other), len(one - other), len(other - one))

    def changes(self, model: str, config: EvaluateConfig | None = None) -> list[MeasureChange]:
        """Return all measures that both runs have of this model at a decoding; p-values are not corrected yet."""
        config = config or EvaluateConfig()
        first, second = self._observations(model)
        found = []
        for decoding, measure in sorted(set(first) & set(second), key=_order):
            settings = interval_settings(config, measure)
            one, other = first[decoding, measure], second[decoding, measure]
            change = mean_difference(one, other, **settings)
            before, after = mean(one, **settings), mean(other, **settings)
            if before and after and change:
                found.append(MeasureChange(model, decoding, measure, before, after, change))
        return found

    def _observations(self, model: str) -> list[dict[tuple[str, Measure], list[Observation]]]:
        documents = {taken.prompt: taken.document for taken in self.first}  # by whatever name the second knows it
        common = documents.keys() & {taken.prompt for taken in self.second}
        sides = []
        for name, answers in (("first", self.first), ("second", self.second)):
            observed: dict[tuple[str, Measure], list[Observation]] = {}
            for taken in answers:
                if taken.model == model and (taken.prompt in common or not common):
                    document = (
                        documents[taken.prompt] if common else f"{name} {taken.document}"
                    )  # else nothing is shared
                    for measure, value in taken.values.items():
                        observed.setdefault((taken.decoding, measure), []).append((document, value))
            sides.append(observed)
        return sides

    def moved(self, model: str, *, decoding: str, measure: Measure) -> list[ChangedExample]:
        """The prompts of both runs whose mean measure differs, greatest change first, rises and falls in turn where
        they are equally great."""
        first, second = (_by_prompt(side, model, decoding, measure) for side in (self.first, self.second))
        moved = [
            ChangedExample(
                first[prompt][0].example, second[prompt][0].example, first[prompt][0].document, before, after
            )
            for prompt in first
            if prompt in second
            for before, after in [(_mean(first[prompt], measure), _mean(second[prompt], measure))]
            if before != after
        ]
        rises = [one for one in moved if one.after > one.before]
        falls = [one for one in moved if one.after < one.before]
        places = [(place, one) for side in (rises, falls) for place, one in enumerate(sorted(side, key=_least_change))]
        return [one for _, one in sorted(places, key=lambda item: (_least_change(item[1]), item[0]))]


def _by_prompt(
    answers: Iterable[ExampleMetrics], model: str, decoding: str, measure: Measure
) -> Mapping[str, list[ExampleMetrics]]:
    found: dict[str, list[ExampleMetrics]] = {}
    for taken in answers:
        if taken.model == model and taken.decoding == decoding and measure in taken.values:
            found.setdefault(taken.prompt, []).append(taken)
    return found


def _least_change(moved: ChangedExample) -> float:
    return -round(abs(moved.after - moved.before), 9)


def _mean(answers: Sequence[ExampleMetrics], measure: Measure) -> float:
    return sum(taken.values[measure] for taken in answers) / len(answers)


def _order(place: tuple[str, Measure]) -> tuple[bool, str, int]:
    """Greedy last; measures in their own order."""
    decoding, measure = place
    return decoding == "greedy", decoding, MEASURES.index(measure)
