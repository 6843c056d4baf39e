"""Compare the models of two runs on held-out prompts: differences of the measures, and the prompts that changed most.

If both runs answered some equal prompts, only these are compared, paired by document. Otherwise each side keeps its own
prompts and the intervals are those of two independent samples.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from longreward.evaluation.comparison import MeasureChange, compare
from longreward.evaluation.config import EvaluateConfig, Measure
from longreward.evaluation.example_metrics import ExampleMetrics
from longreward.evaluation.measures import GREEDY
from longreward.evaluation.statistics import Observation


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
class ChangedExample:
    """A prompt's mean measure in both runs; the ids are each run's own."""

    first_id: str
    second_id: str
    document: str
    before: float
    after: float


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
        # Runs can have different names for the same document: use the first run's.
        documents = {answer.prompt: answer.document for answer in self.first}
        common = documents.keys() & {answer.prompt for answer in self.second}
        sides: list[dict[str, dict[Measure, list[Observation]]]] = []
        for side, answers in (("first", self.first), ("second", self.second)):
            by_decoding: dict[str, dict[Measure, list[Observation]]] = defaultdict(lambda: defaultdict(list))
            for answer in answers:
                if answer.model == model and (answer.prompt in common or not common):
                    # Unpaired samples have no documents in common, whatever their names.
                    document = documents[answer.prompt] if common else f"{side} {answer.document}"
                    for measure, value in answer.values.items():
                        by_decoding[answer.decoding][measure].append((document, value))
            sides.append(by_decoding)
        first, second = sides
        return [
            change
            for name in sorted(first.keys() & second.keys(), key=lambda name: (name == GREEDY, name))
            for change in compare(config or EvaluateConfig(), first[name], second[name], model=model, comparison=name)
        ]

    def changed_examples(self, model: str, *, decoding: str, measure: Measure) -> list[ChangedExample]:
        """Return the prompts of both runs whose mean measure differs, largest change first.

        Among equally large changes, increases and decreases alternate.
        """
        first: dict[str, list[ExampleMetrics]] = defaultdict(list)
        second: dict[str, list[ExampleMetrics]] = defaultdict(list)
        for answers, by_prompt in ((self.first, first), (self.second, second)):
            for answer in answers:
                if answer.model == model and answer.decoding == decoding and measure in answer.values:
                    by_prompt[answer.prompt].append(answer)
        examples = []
        for prompt in first:
            if prompt in second:
                before, after = (fmean(answer.values[measure] for answer in side[prompt]) for side in (first, second))
                if before != after:
                    ids = first[prompt][0].example, second[prompt][0].example
                    examples.append(ChangedExample(*ids, first[prompt][0].document, before, after))

        def negative_size(example: ChangedExample) -> float:
            return -round(abs(example.after - example.before), 9)

        increases = sorted((example for example in examples if example.after > example.before), key=negative_size)
        decreases = sorted((example for example in examples if example.after < example.before), key=negative_size)
        ranked = [item for side in (increases, decreases) for item in enumerate(side)]
        return [example for _, example in sorted(ranked, key=lambda item: (negative_size(item[1]), item[0]))]
