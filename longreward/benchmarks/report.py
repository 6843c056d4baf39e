"""Several models on several benchmarks: one table under both readings, and the models' difference case by case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longreward.benchmarks.shape import Figure, Intervals, Summary
from longreward.evaluation.bootstrap import Estimate, difference

MODELS = {"sft": "SFT", "dpo": "DPO"}


@dataclass(frozen=True)
class Judged:
    """Every model on one benchmark: a summary for each role."""

    name: str
    summaries: Mapping[str, Summary]
    top: float  # the highest score
    official: bool  # published cases and prompts, and no stand-in for the judge
    judge: str

    def gain(self, intervals: Intervals) -> Estimate | None:
        """Mean difference, trained model minus SFT model, over the cases that have a strict value for both."""
        if not {"sft", "dpo"} <= set(self.summaries):
            return None
        sft, dpo = ({each.case_id: each.value for each in self.summaries[role].values} for role in ("sft", "dpo"))
        both = [case for case in sft if case in dpo]
        return difference([(case, sft[case]) for case in both], [(case, dpo[case]) for case in both], **vars(intervals))


@dataclass(frozen=True)
class Report:
    """Every model on every benchmark."""

    benchmarks: Sequence[Judged]
    intervals: Intervals

    @property
    def roles(self) -> list[str]:
        """The models, in their order."""
        return list(dict.fromkeys(role for one in self.benchmarks for role in one.summaries))

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


def markdown(report: Report) -> str:
    """The whole report."""
    parts = ["# Benchmarks", *(_section(one, report.intervals) for one in report.benchmarks)]
    parts.append(
        "`exact` reads the verdicts as the published code does; `strict` leaves out what cannot be read and counts it "
        f"under unscored. Intervals ({report.intervals.confidence:.0%}) are bootstrap intervals over the cases."
    )
    return "\n\n".join(parts) + "\n"


def _section(one: Judged, intervals: Intervals) -> str:
    lines = [f"## {one.name}", "", f"Judge: {one.judge}.", ""]
    if not one.official:
        lines[2] += " Its cases, prompts or judge are not the published ones: hold no score against those."
    if (gain := one.gain(intervals)) is not None:
        sure = "" if gain.excludes_zero else ", which shows nothing"
        lines += [f"DPO minus SFT, case by case: {gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]{sure}.", ""]
    header = [f"{MODELS.get(role, role)} {mode}" for role in one.summaries for mode in ("exact", "strict", "unscored")]
    lines += ["| | cases | " + " | ".join(header) + " |", "|" + "---|" * (len(header) + 2)]
    named = [{figure.name: figure for figure in summary.figures} for summary in one.summaries.values()]
    for name, figure in {name: figure for of_model in named for name, figure in of_model.items()}.items():
        cells = [cell for of_model in named for cell in _cells(of_model.get(name))]
        lines.append(f"| {name} | {figure.cases} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(figure: Figure | None) -> tuple[str, str, str]:
    if figure is None:
        return "", "", ""
    return _shown(figure.exact), _shown(figure.strict), str(figure.unscored)


def _shown(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
