"""The paper's own figures on its two models, for studies with its presets (arXiv 2410.21252, its main results).

LongBench-Chat, LongBench's single- and multi-document QA and summaries, each of 100, and their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longreward.evaluation import charts
from longreward.evaluation.comparison import LOWER_IS_BETTER
from longreward.evaluation.config import Measure
from longreward.evaluation.statistics import Estimate, format_p
from longreward.study.arms import CONTROL, LONGREWARD, MIXED, SFT, SHORT_ONLY, list_arms
from longreward.study.results import CONFIDENCE, JUDGED, Effect, StudyResults, decisive_measures


@dataclass(frozen=True)
class Column:
    """A benchmark's figure: its title, and the name of its metric with a model's run."""

    title: str
    metric: str


COLUMNS = (
    Column("LongBench-Chat", "longbench_chat/score/exact"),
    Column("S-Doc QA", "longbench/class/single_doc_qa/exact"),
    Column("M-Doc QA", "longbench/class/multi_doc_qa/exact"),
    Column("Summ", "longbench/class/summarization/exact"),
)

PAPER: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "paper-llama3.1-8b": {
        SFT: (69.8, 66.1, 44.5, 39.6, 55.0),
        "srm": (67.4, 65.0, 49.6, 42.7, 56.2),
        "contrast": (70.6, 67.8, 46.2, 40.3, 56.2),
        LONGREWARD: (72.6, 67.8, 55.8, 43.2, 59.9),
    },
    "paper-glm4-9b": {
        SFT: (64.8, 68.4, 50.9, 42.1, 56.6),
        "srm": (66.6, 67.5, 57.4, 48.2, 59.9),
        "contrast": (68.2, 67.8, 58.0, 47.8, 60.5),
        LONGREWARD: (69.2, 71.9, 58.8, 48.5, 62.1),
    },
}


# The study's outcome as a Markdown page, and in pictures.


OTHERS = (SFT, CONTROL, "srm", "contrast", "pairwise")


def render_page(outcome: StudyResults, *, preset: str | None = None) -> str:
    """Tables of means and of differences, each with its interval, which say what is shown and what not."""
    parts = [_intro(outcome)]
    parts += [_means(outcome, decoding) for decoding in _decodings(outcome)]
    parts += [_claims(outcome), _mixing(outcome), _ablations(outcome), _benchmarks(outcome, preset)]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_plots(outcome: StudyResults) -> dict[str, str]:
    """File names and their SVG: every arm minus SFT, with intervals."""
    drawn = {}
    for decoding in _decodings(outcome):
        columns = []
        for measure in decisive_measures(outcome.effects):
            effects = [e for e in outcome.effects if (e.against, e.decoding, e.measure) == (SFT, decoding, measure)]
            if effects:
                rows = {effect.arm: (effect.difference, effect.gain) for effect in effects}
                title = f"{measure} (less is better)" if measure in LOWER_IS_BETTER else measure
                columns.append(charts.Differences(title, rows))
        if columns:
            title = f"Every arm minus SFT, {decoding}: blue is better, orange worse, grey not shown"
            drawn[f"study-{decoding}.svg"] = charts.differences(title, columns)
    return drawn


def _intro(outcome: StudyResults) -> str:
    seeds = ", ".join(map(str, outcome.seeds))
    lines = ["| arm | its pairs |", "|---|---|", "| sft | the model that all others start from |"]
    measured = {arm for arm, _ in outcome.means}
    lines += [f"| {arm.name} | {arm.what} |" for arm in list_arms() if arm.name in measured]
    method = (
        f"Intervals ({CONFIDENCE:.0%}) are over documents. p is that of a paired permutation test, corrected for all "
        f"{outcome.tests} comparisons of the study (Holm). A difference is better or worse where p is at most "
        f"{1 - CONFIDENCE:.2g}; else it is not shown."
    )
    return "\n".join([f"Seeds: {seeds}.", "", *lines, "", method])


def _means(outcome: StudyResults, decoding: str) -> str:
    rows = {arm: means for (arm, at), means in outcome.means.items() if at == decoding}
    wanted: tuple[Measure, ...] = (*decisive_measures(outcome.effects), "reward", "tokens")
    shown = [measure for measure in dict.fromkeys(wanted) if any(measure in means for means in rows.values())]
    lines = [f"### {decoding}", "", "| arm | " + " | ".join(shown) + " |", "|" + "---|" * (len(shown) + 1)]
    for arm, means in rows.items():
        cells = [_with_interval(means[measure], measure) if measure in means else "" for measure in shown]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _with_interval(mean: Estimate, measure: Measure) -> str:
    digits = 1 if measure == "tokens" else 2 if measure in JUDGED else 3
    return f"{mean.value:.{digits}f} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"


def _claims(outcome: StudyResults) -> str:
    """LongReward against SFT, chance and the baselines: each difference with its interval and the seeds' own."""
    rows = [effect for other in OTHERS for effect in _between(outcome, LONGREWARD, other)]
    return _effects("LongReward against the others", rows)


def _mixing(outcome: StudyResults) -> str:
    """What short preferences do to long answers, and long ones to short answers."""
    pairs = ((MIXED, LONGREWARD), (MIXED, SHORT_ONLY), (SHORT_ONLY, SFT))
    return _effects("Long and short preferences", [row for pair in pairs for row in _between(outcome, *pair)])


def _ablations(outcome: StudyResults) -> str:
    left = [arm.name for arm in list_arms() if arm.name.startswith("no-") or arm.name == "best-second"]
    rows = [effect for arm in left for effect in _between(outcome, arm, LONGREWARD)]
    return _effects("What each part does: the arm minus LongReward", rows)


def _between(outcome: StudyResults, arm: str, other: str) -> list[Effect]:
    """One minus the other, which may have been taken the other way round, at every decoding."""
    found = []
    for decoding in _decodings(outcome):
        for measure in decisive_measures(outcome.effects):
            direct = outcome.effect(arm, other, decoding, measure)
            turned = outcome.effect(other, arm, decoding, measure)
            if direct is not None:
                found.append(direct)
            elif turned is not None:
                found.append(turned.turned())
    return found


def _effects(title: str, rows: Sequence[Effect]) -> str:
    if not rows:
        return ""
    header = "| | at | measure | difference | interval | p | seed by seed | |"
    lines = [f"### {title}", "", header, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        said = {1: "better", -1: "worse", 0: "not shown"}[row.gain]
        seeds = ", ".join(f"{value:+.3f}" for value in row.by_seed.values())
        change = row.difference
        lines.append(
            f"| {row.arm} − {row.against} | {row.decoding} | {row.measure} | {change.value:+.3f} | "
            f"[{change.low:+.3f}, {change.high:+.3f}] | {format_p(change.p_corrected)} | {seeds} | {said} |"
        )
    return "\n".join(lines)


def _benchmarks(outcome: StudyResults, preset: str | None) -> str:
    """Public benchmarks, each figure beside the paper's own where the preset is one of its models."""
    paper = PAPER.get(preset or "", {})
    if not outcome.benchmarks and not paper:
        return ""
    titles = [*(column.title for column in COLUMNS), "mean"]
    lines = [
        "### Benchmarks",
        "",
        "Whether cases, prompts and judge are the published ones is in each run's report.",
        "",
    ]
    lines += ["In brackets: the paper's own figure.", ""] if paper else []
    lines += ["| arm | " + " | ".join(titles) + " |", "|" + "---|" * (len(titles) + 1)]
    for arm in {**outcome.benchmarks, **paper}:
        own = outcome.benchmarks.get(arm, {})
        values = [own.get(column.metric) for column in COLUMNS]
        known = [value for value in values if value is not None]
        values.append(sum(known) / len(known) if len(known) == len(COLUMNS) else None)
        theirs = paper.get(arm, (None,) * len(titles))
        cells = [_beside(value, of_paper) for value, of_paper in zip(values, theirs, strict=True)]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _beside(value: float | None, of_paper: float | None) -> str:
    shown = [] if value is None else [f"{value:.1f}"]
    return " ".join(shown + ([] if of_paper is None else [f"({of_paper:.1f})"]))


def _decodings(outcome: StudyResults) -> list[str]:
    return list(dict.fromkeys(decoding for _, decoding in outcome.means))
