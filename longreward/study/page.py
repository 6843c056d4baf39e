"""Render the results of a study: a Markdown page and plots.

Studies with a preset of the paper also show the paper's own figures (arXiv 2410.21252, main results): LongBench-Chat,
LongBench's single- and multi-document QA and summarization, each out of 100, and their mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from longreward.evaluation import charts
from longreward.evaluation.comparison import LOWER_IS_BETTER
from longreward.evaluation.config import Measure
from longreward.evaluation.statistics import Estimate, format_p
from longreward.records import DIMENSIONS
from longreward.study.arms import CONSENSUS, CONTROL, GOLD, LONGREWARD, MIXED, REAL_ARMS, SFT, SHORT_ONLY, list_arms
from longreward.study.results import CONFIDENCE, JUDGED, Effect, StudyResults, decisive_measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLUMNS = {
    "LongBench-Chat": "longbench_chat/score",
    "S-Doc QA": "longbench/class/single_doc_qa",
    "M-Doc QA": "longbench/class/multi_doc_qa",
    "Summ": "longbench/class/summarization",
}
"""The metric, in a benchmark run, of each benchmark in the table."""

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


COMPARED_ARMS = (SFT, CONTROL, "srm", "contrast", "pairwise", CONSENSUS, GOLD)


ABLATIONS = ("best-second", *(f"no-{dimension}" for dimension in DIMENSIONS))


def render_page(results: StudyResults, *, preset: str | None = None) -> str:
    """Render tables of means and of differences with their intervals, and which differences are significant."""
    sections = [_intro(results), *(_means_table(results, decoding) for decoding in _decodings(results))]
    for title, comparisons in (
        ("LongReward against the others", [(LONGREWARD, other) for other in COMPARED_ARMS]),
        ("Pairs by gold facts", [(GOLD, SFT), (GOLD, CONTROL)]),
        ("The other methods against SFT", [(CONSENSUS, SFT), (CONTROL, SFT)]),
        ("Long and short preferences", [(MIXED, LONGREWARD), (MIXED, SHORT_ONLY), (SHORT_ONLY, SFT)]),
        ("What each part does: the arm minus LongReward", [(arm, LONGREWARD) for arm in ABLATIONS]),
    ):
        effects = [effect for pair in comparisons for effect in _effects_between(results, *pair)]
        sections.append(_effects_table(title, effects))
    sections.append(_benchmarks(results, preset))
    return "\n\n".join(section for section in sections if section) + "\n"


def render_plots(outcome: StudyResults) -> "dict[str, Figure]":
    """Return figures by file name: every arm minus SFT, with intervals."""
    figures = {}
    for decoding in _decodings(outcome):
        columns: dict[str, dict[str, tuple[Estimate, int]]] = {}
        for measure in decisive_measures(outcome.effects):
            effects = [e for e in outcome.effects if (e.against, e.decoding, e.measure) == (SFT, decoding, measure)]
            if effects:
                title = f"{measure} (less is better)" if measure in LOWER_IS_BETTER else measure
                columns[title] = {effect.arm: (effect.difference, effect.gain) for effect in effects}
        if columns:
            title = f"Every arm minus SFT, {decoding}: blue is better, orange worse, grey not shown"
            figures[f"study-{decoding}.svg"] = charts.draw_differences(title, columns)
    return figures


def _intro(results: StudyResults) -> str:
    seeds = ", ".join(map(str, results.seeds))
    measured = {arm for arm, _ in results.means}
    arms = {arm.name: arm for arm in (*list_arms(), *REAL_ARMS)}
    rows = [f"| {arm.name} | {arm.description} |" for arm in arms.values() if arm.name in measured]
    method = (
        f"Intervals ({CONFIDENCE:.0%}) are over documents. p is that of a paired permutation test, corrected for all "
        f"{results.tests} comparisons of the study (Holm). A difference is better or worse where p is at most "
        f"{1 - CONFIDENCE:.2g}; else it is not shown."
    )
    header = ["| arm | its pairs |", "|---|---|", "| sft | the model that all others start from |"]
    return "\n".join([f"Seeds: {seeds}.", "", *header, *rows, "", method])


def _means_table(results: StudyResults, decoding: str) -> str:
    rows = {arm: means for (arm, arm_decoding), means in results.means.items() if arm_decoding == decoding}
    candidates: tuple[Measure, ...] = (*decisive_measures(results.effects), "reward", "tokens")
    columns = [name for name in dict.fromkeys(candidates) if any(name in means for means in rows.values())]
    lines = [f"### {decoding}", "", _table_header("arm", columns)]
    for arm, means in rows.items():
        cells = [_with_interval(means[name], name) if name in means else "" for name in columns]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table_header(first: str, columns: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}"


def _with_interval(mean: Estimate, measure: Measure) -> str:
    # Tokens are counts of tens, judge scores go from 0 to 10, all other measures are shares.
    digits = 1 if measure == "tokens" else 2 if measure in JUDGED else 3
    return f"{mean.value:.{digits}f} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"


def _effects_between(results: StudyResults, arm: str, against: str) -> Iterator[Effect]:
    """Yield the differences at every decoding in every decisive measure."""
    for decoding in _decodings(results):
        for measure in decisive_measures(results.effects):
            # Only differences from the baselines are computed; others exist in the opposite direction.
            effect = results.effect(arm, against, decoding, measure)
            reverse = results.effect(against, arm, decoding, measure)
            if effect is not None:
                yield effect
            elif reverse is not None:
                yield reverse.reversed()


def _effects_table(title: str, effects: Sequence[Effect]) -> str:
    if not effects:
        return ""
    header = "| | at | measure | difference | interval | p | seed by seed | |"
    lines = [f"### {title}", "", header, "|---|---|---|---|---|---|---|---|"]
    for effect in effects:
        conclusion = {1: "better", -1: "worse", 0: "not shown"}[effect.gain]
        seeds = ", ".join(f"{value:+.3f}" for value in effect.by_seed.values())
        difference = effect.difference
        lines.append(
            f"| {effect.arm} − {effect.against} | {effect.decoding} | {effect.measure} | {difference.value:+.3f} | "
            f"[{difference.low:+.3f}, {difference.high:+.3f}] | {format_p(difference.p_corrected)} | {seeds} | "
            f"{conclusion} |"
        )
    return "\n".join(lines)


def _benchmarks(results: StudyResults, preset: str | None) -> str:
    """Render the public benchmarks, beside the paper's figures where the preset is one of its models."""
    paper = PAPER.get(preset or "", {})
    if not results.benchmarks and not paper:
        return ""
    titles = [*COLUMNS, "mean"]
    lines = [
        "### Benchmarks",
        "",
        "Whether cases, prompts and judge are the published ones is in each run's report.",
        "",
    ]
    if paper:
        lines += ["In brackets: the paper's own figure.", ""]
    lines.append(_table_header("arm", titles))
    for arm in {**results.benchmarks, **paper}:
        metrics = results.benchmarks.get(arm, {})
        values = [metrics.get(metric) for metric in COLUMNS.values()]
        # A mean over fewer benchmarks could not be compared with the paper's.
        present = [value for value in values if value is not None]
        values.append(sum(present) / len(present) if len(present) == len(COLUMNS) else None)
        paper_values = paper.get(arm, (None,) * len(titles))
        cells = []
        for value, paper_value in zip(values, paper_values, strict=True):
            texts = [] if value is None else [f"{value:.1f}"]
            cells.append(" ".join(texts + ([] if paper_value is None else [f"({paper_value:.1f})"])))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _decodings(results: StudyResults) -> list[str]:
    return list(dict.fromkeys(decoding for _, decoding in results.means))
