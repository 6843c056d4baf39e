"""The study's outcome as a Markdown page, and in pictures."""

from collections.abc import Sequence

from longreward.evaluation import svg
from longreward.evaluation.comparison import LOWER_IS_BETTER
from longreward.evaluation.config import Measure
from longreward.evaluation.statistics import Estimate, format_p
from longreward.study.arms import CONTROL, LONGREWARD, MIXED, SFT, SHORT_ONLY, arms
from longreward.study.paper_results import COLUMNS, PAPER
from longreward.study.results import CONFIDENCE, JUDGED, Effect, Outcome, decisive_measures

OTHERS = (SFT, CONTROL, "srm", "contrast", "pairwise")


def markdown(outcome: Outcome, *, preset: str | None = None) -> str:
    """Tables of means and of differences, each with its interval, which say what is shown and what not."""
    parts = [_intro(outcome)]
    parts += [_means(outcome, decoding) for decoding in _decodings(outcome)]
    parts += [_claims(outcome), _mixing(outcome), _ablations(outcome), _benchmarks(outcome, preset)]
    return "\n\n".join(part for part in parts if part) + "\n"


def pictures(outcome: Outcome) -> dict[str, str]:
    """File names and their SVG: every arm minus SFT, with intervals."""
    drawn = {}
    for decoding in _decodings(outcome):
        columns = []
        for measure in decisive_measures(outcome.effects):
            effects = [e for e in outcome.effects if (e.against, e.decoding, e.measure) == (SFT, decoding, measure)]
            if effects:
                rows = {effect.arm: (effect.difference, effect.gain) for effect in effects}
                title = f"{measure} (less is better)" if measure in LOWER_IS_BETTER else measure
                columns.append(svg.Differences(title, rows))
        if columns:
            title = f"Every arm minus SFT, {decoding}: blue is better, orange worse, grey not shown"
            drawn[f"study-{decoding}.svg"] = svg.differences(title, columns)
    return drawn


def _intro(outcome: Outcome) -> str:
    seeds = ", ".join(map(str, outcome.seeds))
    lines = ["| arm | its pairs |", "|---|---|", "| sft | the model that all others start from |"]
    measured = {arm for arm, _ in outcome.means}
    lines += [f"| {arm.name} | {arm.what} |" for arm in arms() if arm.name in measured]
    method = (
        f"Intervals ({CONFIDENCE:.0%}) are over documents. p is that of a paired permutation test, corrected for all "
        f"{outcome.tests} comparisons of the study (Holm). A difference is better or worse where p is at most "
        f"{1 - CONFIDENCE:.2g}; else it is not shown."
    )
    return "\n".join([f"Seeds: {seeds}.", "", *lines, "", method])


def _means(outcome: Outcome, decoding: str) -> str:
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


def _claims(outcome: Outcome) -> str:
    """LongReward against SFT, chance and the baselines: each difference with its interval and the seeds' own."""
    rows = [effect for other in OTHERS for effect in _between(outcome, LONGREWARD, other)]
    return _effects("LongReward against the others", rows)


def _mixing(outcome: Outcome) -> str:
    """What short preferences do to long answers, and long ones to short answers."""
    pairs = ((MIXED, LONGREWARD), (MIXED, SHORT_ONLY), (SHORT_ONLY, SFT))
    return _effects("Long and short preferences", [row for pair in pairs for row in _between(outcome, *pair)])


def _ablations(outcome: Outcome) -> str:
    left = [arm.name for arm in arms() if arm.name.startswith("no-") or arm.name == "best-second"]
    rows = [effect for arm in left for effect in _between(outcome, arm, LONGREWARD)]
    return _effects("What each part does: the arm minus LongReward", rows)


def _between(outcome: Outcome, arm: str, other: str) -> list[Effect]:
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


def _benchmarks(outcome: Outcome, preset: str | None) -> str:
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


def _decodings(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(decoding for _, decoding in outcome.means))
