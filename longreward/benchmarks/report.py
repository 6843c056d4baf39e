"""Several models on several benchmarks: one table under both readings, and the models' difference case by case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longreward.benchmarks.types import IntervalOptions, Metric, Summary
from longreward.evaluation.statistics import DifferenceEstimate, Estimate, format_p, holm_corrected, mean_difference

MODELS = {"sft": "SFT", "dpo": "DPO"}


@dataclass(frozen=True)
class BenchmarkResult:
    """Every model on one benchmark: a summary for each role."""

    name: str
    summaries: Mapping[str, Summary]
    top: float  # the highest score
    official: bool  # published cases and prompts, and no stand-in for the judge
    judge: str

    def gain(self, intervals: IntervalOptions) -> DifferenceEstimate | None:
        """Mean difference, trained model minus SFT model, over the cases that have a strict value for both."""
        if not {"sft", "dpo"} <= set(self.summaries):
            return None
        sft, dpo = ({each.case_id: each.value for each in self.summaries[role].values} for role in ("sft", "dpo"))
        both = [case for case in sft if case in dpo]
        return mean_difference(
            [(case, sft[case]) for case in both],
            [(case, dpo[case]) for case in both],
            **vars(intervals),
            bounds=(0.0, self.top),
        )


@dataclass(frozen=True)
class BenchmarkReport:
    """Every model on every benchmark."""

    benchmarks: Sequence[BenchmarkResult]
    intervals: IntervalOptions

    @property
    def roles(self) -> list[str]:
        """The models, in their order."""
        return list(dict.fromkeys(role for one in self.benchmarks for role in one.summaries))

    def gains(self) -> dict[str, DifferenceEstimate]:
        """Return the gain on each benchmark that both models answered, p-values corrected for their number."""
        known = {one.name: gain for one in self.benchmarks if (gain := one.gain(self.intervals)) is not None}
        return dict(zip(known, holm_corrected(list(known.values())), strict=True))

    def figures(self, role: str) -> dict[str, float]:
        """One model's metrics, under the same names for every model."""
        found: dict[str, float] = {}
        for one in self.benchmarks:
            found |= one.summaries[role].metrics()
        return found

    def headline(self) -> dict[str, float]:
        """The first figure of each benchmark for each model, `mt_bench/dpo`, and the gain, `mt_bench/gain`."""
        found: dict[str, float] = {}
        for one in self.benchmarks:
            for role, summary in one.summaries.items():
                if (value := summary.figures[0].strict) is not None:
                    found[f"{one.name}/{role}"] = value.value
                found[f"{one.name}/{role}/unscored"] = float(summary.figures[0].unscored)
            if (gain := one.gain(self.intervals)) is not None:
                found[f"{one.name}/gain"] = gain.value
        return found


def markdown(report: BenchmarkReport) -> str:
    """The whole report."""
    gains = report.gains()
    parts = ["# Benchmarks", *(_section(one, gains.get(one.name)) for one in report.benchmarks)]
    parts.append(
        "`exact` reads the verdicts as the published code does; `strict` leaves out what cannot be read and counts it "
        f"under unscored. Intervals ({report.intervals.confidence:.0%}) are over the cases. p is "
        f"that of a paired permutation test, corrected for the number of benchmarks (Holm); a gain is shown where "
        f"it is at most {1 - report.intervals.confidence:.2g}."
    )
    return "\n\n".join(parts) + "\n"


def _section(one: BenchmarkResult, gain: DifferenceEstimate | None) -> str:
    lines = [f"## {one.name}", "", f"Judge: {one.judge}.", ""]
    if not one.official:
        lines[2] += " Its cases, prompts or judge are not the published ones: hold no score against those."
    if gain is not None:
        interval, p = f"[{gain.low:+.2f}, {gain.high:+.2f}]", format_p(gain.p_corrected)
        shown = "" if gain.is_shown else ", which shows nothing"
        lines += [f"DPO minus SFT, case by case: {gain.value:+.2f} {interval}, p {p}{shown}.", ""]
    header = [f"{MODELS.get(role, role)} {mode}" for role in one.summaries for mode in ("exact", "strict", "unscored")]
    lines += ["| | cases | " + " | ".join(header) + " |", "|" + "---|" * (len(header) + 2)]
    named = [{figure.name: figure for figure in summary.figures} for summary in one.summaries.values()]
    for name, figure in {name: figure for of_model in named for name, figure in of_model.items()}.items():
        cells = [cell for of_model in named for cell in _cells(of_model.get(name))]
        lines.append(f"| {name} | {figure.cases} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(figure: Metric | None) -> tuple[str, str, str]:
    if figure is None:
        return "", "", ""
    return _shown(figure.exact), _shown(figure.strict), str(figure.unscored)


def _shown(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
