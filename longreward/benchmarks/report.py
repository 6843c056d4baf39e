"""The report on all benchmarks: metrics of each model, and the paired difference between the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from longreward.benchmarks.overlap import NOTABLE_SHARE, WORDS, CaseOverlap
from longreward.benchmarks.types import Summary
from longreward.evaluation.statistics import (
    DifferenceEstimate,
    Estimate,
    IntervalOptions,
    format_p,
    holm_corrected,
    mean_difference,
)
from longreward.judge.prompts import Parsing

MODEL_LABELS = {"sft": "SFT", "dpo": "DPO"}


@dataclass(frozen=True)
class BenchmarkResult:
    """The summaries of all models on one benchmark, by role."""

    name: str
    summaries: Mapping[str, Summary]
    max_score: float
    official: bool  # published cases and prompts, and not the offline judge
    judge: str | None = None
    """None: the answers are compared with references."""

    def difference(self, options: IntervalOptions) -> DifferenceEstimate | None:
        """Return the mean score of the trained model minus the SFT model's, over cases that are scored for both."""
        if not {"sft", "dpo"} <= set(self.summaries):
            return None
        sft, dpo = ({case.case_id: case.score for case in self.summaries[role].case_scores} for role in ("sft", "dpo"))
        # Pairing by case removes the variance of the cases' difficulty.
        shared = [case_id for case_id in sft if case_id in dpo]
        return mean_difference(
            [(case_id, sft[case_id]) for case_id in shared],
            [(case_id, dpo[case_id]) for case_id in shared],
            options,
            bounds=(0.0, self.max_score),
        )


@dataclass(frozen=True)
class BenchmarkReport:
    """All models on all benchmarks."""

    results: Sequence[BenchmarkResult]
    options: IntervalOptions
    parsing: Parsing = "strict"
    overlaps: Mapping[str, Sequence[CaseOverlap]] = field(default_factory=dict)
    """By benchmark, the overlap of each case with the training data."""

    @property
    def roles(self) -> list[str]:
        """The models' roles, in order."""
        return list(dict.fromkeys(role for result in self.results for role in result.summaries))

    def differences(self) -> dict[str, DifferenceEstimate]:
        """Return the difference on each benchmark, with p-values corrected for the number of benchmarks."""
        differences = {
            result.name: difference
            for result in self.results
            if (difference := result.difference(self.options)) is not None
        }
        return dict(zip(differences, holm_corrected(list(differences.values())), strict=True))

    def metrics(self, role: str) -> dict[str, float]:
        """Return the metrics of one model; the names are the same for every model."""
        return {name: value for result in self.results for name, value in result.summaries[role].to_dict().items()}

    def headline(self) -> dict[str, float]:
        """Return the first metric of each benchmark for each model, `mt_bench/dpo`, and `mt_bench/difference`."""
        values: dict[str, float] = {}
        for result in self.results:
            for role, summary in result.summaries.items():
                if (estimate := summary.metrics[0].estimate) is not None:
                    values[f"{result.name}/{role}"] = estimate.value
                values[f"{result.name}/{role}/unscored"] = float(summary.metrics[0].unscored)
            if (difference := result.difference(self.options)) is not None:
                values[f"{result.name}/difference"] = difference.value
        return values


def markdown(report: BenchmarkReport) -> str:
    """Return the report as Markdown."""
    differences = report.differences()
    sections = [benchmark_section(result, differences.get(result.name)) for result in report.results]
    confidence = report.options.confidence
    notes = (
        f"Verdicts are parsed as benchmark.parsing says ({report.parsing}). Intervals ({confidence:.0%}) are over the "
        "cases. p is from a paired permutation test, corrected for the number of benchmarks (Holm). A difference is "
        f"significant if p is at most {1 - confidence:.2g}."
    )
    return "\n\n".join(["# Benchmarks", *sections, *_overlap_section(report.overlaps), notes]) + "\n"


def _overlap_section(overlaps: Mapping[str, Sequence[CaseOverlap]]) -> list[str]:
    if not overlaps:
        return []
    lines = [
        "## Overlap with the training data",
        "",
        f"Cases that share sequences of {WORDS} words with the examples of `prepare`. What the base model was trained "
        "on before is not known.",
        "",
        f"| benchmark | cases | with a shared sequence | with {NOTABLE_SHARE:.0%} or more | largest share |",
        "|---|---|---|---|---|",
    ]
    for name, cases in overlaps.items():
        largest = max(cases, key=lambda case: case.share)
        source = f"{largest.share:.1%} ({largest.case_id}, example {largest.example_id})" if largest.share else "0"
        shared = sum(case.share > 0 for case in cases)
        notable = sum(case.share >= NOTABLE_SHARE for case in cases)
        lines.append(f"| {name} | {len(cases)} | {shared} | {notable} | {source} |")
    return ["\n".join(lines)]


def benchmark_section(result: BenchmarkResult, difference: DifferenceEstimate | None = None) -> str:
    """Return the heading, the notes and the metrics of one benchmark as Markdown."""
    judge = f"Judge: {result.judge}." if result.judge else "No judge: answers are compared with references."
    lines = [f"## {result.name}", "", judge, ""]
    if not result.official:
        lines[2] += (
            " Cases, prompts or judge are not the published ones, so that scores are not comparable to published ones."
        )
    if difference is not None:
        interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        detectable = ""
        if difference.detectable is not None:
            detectable = f" Detectable with a power of 80 %: {difference.detectable:.2f}."
        significance = "" if difference.is_shown else " (not significant)"
        lines += [
            f"DPO minus SFT, paired by case: {difference.value:+.2f} {interval}, "
            f"p {format_p(difference.p_corrected)}{significance}.{detectable}",
            "",
        ]
    by_model = [{metric.name: metric for metric in summary.metrics} for summary in result.summaries.values()]
    header = [
        f"{MODEL_LABELS.get(role, role)} {column}".strip() for role in result.summaries for column in ("", "unscored")
    ]
    lines += ["| metric | cases | " + " | ".join(header) + " |", "|" + "---|" * (len(header) + 2)]
    for name, metric in {name: metric for metrics in by_model for name, metric in metrics.items()}.items():
        cells = []
        for metrics in by_model:
            row = metrics.get(name)
            cells += ["", ""] if row is None else [_format(row.estimate), str(row.unscored)]
        lines.append(f"| {name} | {metric.cases} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
