"""The study's outcome as a Markdown page, and in pictures."""

from collections.abc import Sequence

from longreward.evaluation import svg
from longreward.evaluation.config import GOLD_MEASURES, Measure
from longreward.study.arms import CONTROL, LONGREWARD, arms
from longreward.study.outcome import SFT, SHOWN, Effect, Outcome

OTHERS = (SFT, CONTROL, "srm", "contrast", "pairwise")


def markdown(outcome: Outcome) -> str:
    """Tables of means, of LongReward against every other arm, and sentences that say what is shown and what not."""
    parts = [_intro(outcome)]
    for decoding in _decodings(outcome):
        parts.append(_means(outcome, decoding))
    parts += [_claims(outcome), _ablations(outcome)]
    return "\n\n".join(part for part in parts if part) + "\n"


def pictures(outcome: Outcome) -> dict[str, str]:
    """File names and their SVG: the gold measures of every arm, with intervals."""
    drawn = {}
    for decoding in _decodings(outcome):
        rows = {arm: means for (arm, at), means in outcome.means.items() if at == decoding}
        panels = [
            svg.Bars(measure, {measure: {arm: means[measure] for arm, means in rows.items() if measure in means}})
            for measure in GOLD_MEASURES
        ]
        drawn[f"study-{decoding}.svg"] = svg.bars(f"Gold measures of every arm, {decoding}", panels, top=1)
    return drawn


def _intro(outcome: Outcome) -> str:
    seeds = ", ".join(map(str, outcome.seeds))
    lines = ["| arm | its pairs |", "|---|---|", "| sft | the model that all others start from |"]
    measured = {arm for arm, _ in outcome.means}
    lines += [f"| {arm.name} | {arm.what} |" for arm in arms() if arm.name in measured]
    return "\n".join([f"Seeds: {seeds}.", "", *lines])


def _means(outcome: Outcome, decoding: str) -> str:
    rows = {arm: means for (arm, at), means in outcome.means.items() if at == decoding}
    shown = [measure for measure in SHOWN if any(measure in means for means in rows.values())]
    lines = [f"### {decoding}", "", "| arm | " + " | ".join(shown) + " |", "|" + "---|" * (len(shown) + 1)]
    for arm, means in rows.items():
        cells = [f"{means[m].value:.{_digits(m)}f}" if m in means else "" for m in shown]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _claims(outcome: Outcome) -> str:
    """LongReward against SFT, chance and the baselines: each difference with its interval and the seeds' own."""
    rows = [
        _against(outcome, other, decoding, measure)
        for other in OTHERS
        for decoding in _decodings(outcome)
        for measure in GOLD_MEASURES
    ]
    return _effects("LongReward against the others", [row for row in rows if row is not None])


def _against(outcome: Outcome, other: str, decoding: str, measure: Measure) -> Effect | None:
    """LongReward minus `other`, which may have been measured the other way round."""
    direct = outcome.effect(LONGREWARD, other, decoding, measure)
    if direct is not None:
        return direct
    turned = outcome.effect(other, LONGREWARD, decoding, measure)
    return turned.turned() if turned is not None else None


def _ablations(outcome: Outcome) -> str:
    rows = [
        effect
        for effect in outcome.effects
        if effect.against == LONGREWARD
        and effect.measure in GOLD_MEASURES
        and (effect.arm.startswith("no-") or effect.arm == "best-second")
    ]
    return _effects("What each part does: the arm minus LongReward", rows)


def _effects(title: str, rows: Sequence[Effect]) -> str:
    if not rows:
        return ""
    header = "| | at | measure | difference | interval | seed by seed | |"
    lines = [f"### {title}", "", header, "|---|---|---|---|---|---|---|"]
    for row in rows:
        said = {1: "better", -1: "worse", 0: "not shown"}[row.gain]
        seeds = ", ".join(f"{value:+.3f}" for value in row.by_seed.values())
        change = row.difference
        lines.append(
            f"| {row.arm} − {row.against} | {row.decoding} | {row.measure} | {change.value:+.3f} | "
            f"[{change.low:+.3f}, {change.high:+.3f}] | {seeds} | {said} |"
        )
    return "\n".join(lines)


def _decodings(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(decoding for _, decoding in outcome.means))


def _digits(measure: Measure) -> int:
    return 1 if measure == "tokens" else 2 if measure in ("reward", "faithfulness", "completeness") else 3
