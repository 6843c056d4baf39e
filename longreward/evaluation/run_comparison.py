"""Compare the models of two runs on held-out prompts: differences of the measures, and the prompts that changed most.

If both runs answered some equal prompts, only these are compared, paired by document. Otherwise each side keeps its own
prompts and the intervals are those of two independent samples.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from longreward.evaluation.comparison import NEUTRAL_MEASURES, improvement, interval_options
from longreward.evaluation.config import MEASURES, EvaluateConfig, Measure
from longreward.evaluation.example_metrics import ExampleMetrics
from longreward.evaluation.measures import GREEDY
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
    """The numbers of held-out prompts that both runs or only one of them answered."""

    both: int
    only_first: int
    only_second: int

    @property
    def sentence(self) -> str:
        """Describe the basis of the comparison."""
        if not self.both:
            return (
                f"Unpaired: the runs have no held-out prompt in common ({self.only_first} and {self.only_second}), so "
                "differences can come from the prompts as well as from the models."
            )
        excluded = ""
        if self.only_first or self.only_second:
            excluded = f"; {self.only_first} and {self.only_second} prompts that only one run answered are excluded"
        return f"Paired by document on the {self.both} held-out prompts that both runs answered{excluded}."


@dataclass(frozen=True)
class MeasureChange:
    """One measure of a model at one decoding in both runs."""

    model: str
    decoding: str
    measure: Measure
    first: Estimate
    second: Estimate
    difference: DifferenceEstimate

    @property
    def improvement(self) -> int:
        """1 if the second run is shown to be better, -1 if it is shown to be worse, otherwise 0."""
        return improvement(self.measure, self.difference)


@dataclass(frozen=True)
class ChangedExample:
    """A prompt's mean measure in both runs; the ids are each run's own."""

    first_id: str
    second_id: str
    document: str
    before: float
    after: float


def correct_changes(changes: Sequence[MeasureChange]) -> list[MeasureChange]:
    """Correct the p-values of all changes of a report for their number; neutral measures do not count."""
    tested = [change for change in changes if change.measure not in NEUTRAL_MEASURES]
    differences = iter(holm_corrected([change.difference for change in tested]))
    return [
        change if change.measure in NEUTRAL_MEASURES else replace(change, difference=next(differences))
        for change in changes
    ]


@dataclass(frozen=True)
class RunComparison:
    """The answers of two runs."""

    first: Sequence[ExampleMetrics]
    second: Sequence[ExampleMetrics]

    @property
    def overlap(self) -> PromptOverlap:
        """The overlap of the held-out prompts."""
        first, second = ({answer.prompt for answer in side} for side in (self.first, self.second))
        return PromptOverlap(len(first & second), len(first - second), len(second - first))

    def changes(self, model: str, config: EvaluateConfig | None = None) -> list[MeasureChange]:
        """Return the changes of all measures that both runs have, greedy last; p-values are not corrected yet."""
        config = config or EvaluateConfig()
        first, second = self._observations(model)
        changes = []
        for decoding, measure in sorted(set(first) & set(second), key=_sort_key):
            options = interval_options(config, measure)
            sides = first[decoding, measure], second[decoding, measure]
            before, after = (mean(side, **options) for side in sides)
            difference = mean_difference(*sides, **options)
            if before and after and difference:
                changes.append(MeasureChange(model, decoding, measure, before, after, difference))
        return changes

    def _observations(self, model: str) -> list[dict[tuple[str, Measure], list[Observation]]]:
        # Runs can have different names for the same document: use the first run's.
        documents = {answer.prompt: answer.document for answer in self.first}
        common = documents.keys() & {answer.prompt for answer in self.second}
        sides = []
        for side, answers in (("first", self.first), ("second", self.second)):
            observations: dict[tuple[str, Measure], list[Observation]] = defaultdict(list)
            for answer in answers:
                if answer.model == model and (answer.prompt in common or not common):
                    # Unpaired samples have no documents in common, whatever their names.
                    document = documents[answer.prompt] if common else f"{side} {answer.document}"
                    for measure, value in answer.values.items():
                        observations[answer.decoding, measure].append((document, value))
            sides.append(dict(observations))
        return sides

    def changed_examples(self, model: str, *, decoding: str, measure: Measure) -> list[ChangedExample]:
        """Return the prompts of both runs whose mean measure differs, largest change first.

        Among equally large changes, increases and decreases alternate.
        """
        first, second = (_by_prompt(side, model, decoding, measure) for side in (self.first, self.second))
        examples = [
            ChangedExample(
                first[prompt][0].example, second[prompt][0].example, first[prompt][0].document, before, after
            )
            for prompt in first
            if prompt in second
            for before, after in [(_mean(first[prompt], measure), _mean(second[prompt], measure))]
            if before != after
        ]
        increases = sorted((example for example in examples if example.after > example.before), key=_negative_size)
        decreases = sorted((example for example in examples if example.after < example.before), key=_negative_size)
        ranked = [item for side in (increases, decreases) for item in enumerate(side)]
        return [example for _, example in sorted(ranked, key=lambda item: (_negative_size(item[1]), item[0]))]


def _by_prompt(
    answers: Iterable[ExampleMetrics], model: str, decoding: str, measure: Measure
) -> Mapping[str, list[ExampleMetrics]]:
    groups: dict[str, list[ExampleMetrics]] = defaultdict(list)
    for answer in answers:
        if answer.model == model and answer.decoding == decoding and measure in answer.values:
            groups[answer.prompt].append(answer)
    return groups


def _negative_size(example: ChangedExample) -> float:
    return -round(abs(example.after - example.before), 9)


def _mean(answers: Sequence[ExampleMetrics], measure: Measure) -> float:
    return fmean(answer.values[measure] for answer in answers)


def _sort_key(key: tuple[str, Measure]) -> tuple[bool, str, int]:
    decoding, measure = key
    return decoding == GREEDY, decoding, MEASURES.index(measure)
