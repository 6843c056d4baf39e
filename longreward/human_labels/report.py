"""The report on human labels: computed once, rendered as Markdown or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from longreward.errors import DataError
from longreward.evaluation.statistics import Estimate, IntervalOptions
from longreward.human_labels.agreement import (
    JUDGE,
    LENGTH,
    Agreement,
    Ratings,
    accuracy_by_stratum,
    compare_repeats,
    compare_reviewers,
    compare_with_labels,
    confusion,
    disagreements,
    judge_ratings,
    length_ratings,
    light_kappa,
)
from longreward.human_labels.items import WORDS, Kind, Label, LabelSet, format_value
from longreward.utils.markdown import markdown_table
from longreward.utils.plurals import pluralize

SHOWN_TEXT = 120
CONFUSION_KINDS: tuple[Kind, ...] = ("support", "preference")


@dataclass(frozen=True)
class LabelReport:
    """The agreement of the judge and its baselines with one set of labels."""

    judge: str
    labels: LabelSet
    ratings: Ratings
    """The judge's verdicts."""
    agreements: tuple[Agreement, ...]
    """Of the judge and of the length-only baseline with the labels."""
    repeats: tuple[Agreement, ...]
    """Of the judge with itself; empty if its verdicts were not repeated."""
    reviewers: tuple[Agreement, ...]
    """Of each two reviewers."""
    strata: dict[str, tuple[int, Estimate | None]]
    """Number of labels and pairwise accuracy by margin."""


def make_report(
    labels: LabelSet, *, judge: str = "", rounds: Sequence[Ratings] = (), options: IntervalOptions | None = None
) -> LabelReport:
    """Compare the judge's verdicts with the labels.

    Args:
        judge: The name of the judge of `rounds`; by default the one whose verdicts are stored with the items.
        rounds: New verdicts of the judge. The first round is compared with the labels, all rounds with each other.

    Raises:
        DataError: There are no labels.
    """
    if not labels.labels:
        raise DataError("there are no labels yet: label items, then run `longreward review collect` or `import`")
    options = options or IntervalOptions()
    ratings = rounds[0] if rounds else judge_ratings(labels)
    stored = sorted({item.judge for item in labels.items.values() if item.judge})
    raters = {JUDGE: ratings, LENGTH: length_ratings(labels)}
    return LabelReport(
        judge=judge or ", ".join(stored) or "unknown",
        labels=labels,
        ratings=ratings,
        agreements=tuple(compare_with_labels(labels, raters, options)),
        repeats=tuple(compare_repeats(labels, rounds, options)) if len(rounds) > 1 else (),
        reviewers=tuple(compare_reviewers(labels, options)),
        strata=accuracy_by_stratum(labels, ratings, options),
    )


def to_json(report: LabelReport) -> dict[str, Any]:
    """Return all figures with their intervals as plain data."""
    agreements = (*report.agreements, *report.repeats)
    return {
        "judge": report.judge,
        "labels": len(report.labels.labels),
        "items": len(report.labels.by_item()),
        "agreement": [asdict(agreement) for agreement in agreements],
        "reviewers": [asdict(agreement) for agreement in report.reviewers],
        "margins": {
            name: {"labels": count, "accuracy": asdict(estimate) if estimate else None}
            for name, (count, estimate) in report.strata.items()
        },
        "confusion": {kind: confusion(report.labels, report.ratings, kind) for kind in CONFUSION_KINDS},
        "disagreements": [
            {**label.model_dump(exclude_none=True), "judge": value}
            for label, value in disagreements(report.labels, report.ratings)
        ],
    }


def render_markdown(report: LabelReport, *, shown: int = 10) -> str:
    """Render the report, with at most `shown` disagreements."""
    labels = report.labels
    reviewers = sorted({label.reviewer for label in labels.labels})
    lines = [
        f"# {report.judge}: agreement with human labels",
        "",
        f"{pluralize(len(labels.labels), 'label')} of {pluralize(len(labels.by_item()), 'item')} by "
        f"{pluralize(len(reviewers), 'reviewer')}: "
        f"{', '.join(reviewers)}. Intervals are 95 %, by document.",
        "",
        *markdown_table(HEADER, [_row(agreement) for agreement in _in_order(report)]),
        "",
        *_missing(report),
        *_strata(report),
        *_reviewers(report),
    ]
    for kind in CONFUSION_KINDS:
        lines += _confusion(report, kind)
    lines += _disagreements(report, shown)
    return "\n".join(lines).rstrip() + "\n"


def _value(kind: Kind, value: float) -> str:
    return f"{value:.3g}" if kind == "score" else str(format_value(kind, value))


HEADER = ("question", "rater", "labels", "kappa", "quadratic kappa", "equal", "pairwise accuracy")


def _in_order(report: LabelReport) -> list[Agreement]:
    """Return the rows of each question together: judge, length, judge against itself."""
    repeats = {agreement.question: agreement for agreement in report.repeats}
    rows = []
    for agreement in report.agreements:
        rows.append(agreement)
        if agreement.rater == LENGTH and agreement.question in repeats:
            rows.append(repeats[agreement.question])
    return rows


def _row(agreement: Agreement) -> list[str]:
    estimates = (agreement.kappa, agreement.weighted_kappa, agreement.exact, agreement.accuracy)
    return [agreement.question, agreement.rater, str(agreement.count), *map(format_estimate, estimates)]


def format_estimate(estimate: Estimate | None) -> str:
    """Return a value with its interval, or a dash."""
    return "–" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _missing(report: LabelReport) -> list[str]:
    missing = sum(report.ratings.get(label.item) is None for label in report.labels.labels)
    if not missing:
        return []
    return [
        f"{pluralize(missing, 'label')} without a verdict of the judge; "
        "`longreward review report --judge` requests the missing verdicts.",
        "",
    ]


def _strata(report: LabelReport) -> list[str]:
    if not report.strata:
        return []
    rows = [[name, str(count), format_estimate(estimate)] for name, (count, estimate) in report.strata.items()]
    return ["## Preferences by margin", "", *markdown_table(("stratum", "labels", "pairwise accuracy"), rows), ""]


def _reviewers(report: LabelReport) -> list[str]:
    if not report.reviewers:
        return []
    lines = ["## Between reviewers", "", *markdown_table(HEADER, [_row(pair) for pair in report.reviewers]), ""]
    for kind in dict.fromkeys(pair.kind for pair in report.reviewers):
        pairs = [pair for pair in report.reviewers if pair.kind == kind]
        light = light_kappa(pairs, lambda pair: pair.weighted_kappa)
        if len(pairs) > 1 and light is not None:
            lines += [
                f"Light's kappa of {kind}, the mean over {len(pairs)} pairs of reviewers (quadratic): {light:.2f}",
                "",
            ]
    return lines


def _confusion(report: LabelReport, kind: Kind) -> list[str]:
    counts = confusion(report.labels, report.ratings, kind)
    if not any(map(sum, counts)):
        return []
    words = list(WORDS[kind])[::-1]  # levels are from the lowest
    rows = [[word, *map(str, row)] for word, row in zip(words, counts, strict=True)]
    header = ("reviewer", *(f"judge: {word}" for word in words))
    return [f"## Confusion matrix: {kind}", "", *markdown_table(header, rows), ""]


def _disagreements(report: LabelReport, shown: int) -> list[str]:
    different = disagreements(report.labels, report.ratings)
    if not different or not shown:
        return []
    rows = [_disagreement(report, label, value) for label, value in different[:shown]]
    return [
        f"## Disagreements: {min(shown, len(different))} of {len(different)}, the largest first",
        "",
        *markdown_table(("item", "about", "reviewer", "label", "judge", "text", "comment"), rows),
        "",
    ]


def _disagreement(report: LabelReport, label: Label, value: float) -> list[str]:
    item = report.labels.items[label.item]
    text = item.statement or " / ".join(item.responses)
    return [
        item.id,
        item.aspect,
        label.reviewer,
        _value(item.kind, label.value),
        _value(item.kind, value),
        text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}…",
        label.comment or "",
    ]
