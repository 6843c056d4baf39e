"""What the comparison shows: learning, or only a sharper distribution.

At temperature 1 a model gains by merely putting more weight on what it already preferred. So three comparisons stand
side by side: both at 1; the trained model at 1 against SFT at 0.5; both greedy. Only the last two show learning. Gold
measures decide where there are any, else the reward.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from longreward.evaluation.comparison import NEUTRAL, Row
from longreward.evaluation.config import GOLD_MEASURES
from longreward.evaluation.significance import least_documents

Finding = Literal["learning", "only sharpening", "no improvement", "not compared"]


def summarize_effect(rows: Sequence[Row]) -> tuple[Finding, str]:
    """What the rows show, and the sentence that says so."""
    decisive = [row for row in rows if row.measure in GOLD_MEASURES]
    decisive = decisive or [row for row in rows if row.measure == "reward"]
    if not decisive:
        return "not compared", "Nothing was compared: one of the two models has no measured answers."
    by_label: dict[str, list[Row]] = {}
    for row in decisive:
        by_label.setdefault(row.comparison, []).append(row)
    better = [label for label, of in by_label.items() if max(r.gain for r in of) > 0 and min(r.gain for r in of) >= 0]
    beyond = {label: label in better for label in by_label if label == "greedy" or " against " in label}
    finding: Finding = "no improvement"
    if better:
        finding = "learning" if any(beyond.values()) else "only sharpening"
    said = {
        "learning": "Learning is shown: the trained model is better than the SFT model where a sharper distribution "
        f"alone does not help, {_gains(by_label, [label for label, shown in beyond.items() if shown])}.",
        "only sharpening": f"Only sharpening is shown: the trained model is better at {', '.join(better)}, but not "
        f"where a sharper distribution alone does not help ({', '.join(beyond) or 'not measured'}).",
        "no improvement": "No improvement is shown: nowhere is a measure shown to be better without another one being "
        "shown to be worse.",
    }[finding]
    documents = max(row.difference.documents for row in decisive)
    tests = sum(row.measure not in NEUTRAL for row in rows)
    if documents < (least := least_documents(decisive[0].difference.level, tests)):
        said = (
            f"Nothing can be shown: {documents} held-out documents are too few for {tests} comparisons, "
            f"{least} are the least."
        )
    missed = [label for label, shown in beyond.items() if not shown]
    if finding == "learning" and missed:
        said += f" It is not better at {', '.join(missed)}."
    mixed = [label for label in beyond if {1, -1} <= {row.gain for row in by_label[label]}]
    if mixed:
        said += f" Mixed, and so counted as not better: {_gains(by_label, mixed)}."
    return finding, f"{said} {_lengths(rows)}".strip()


def _gains(by_label: Mapping[str, Sequence[Row]], labels: Iterable[str]) -> str:
    """Return what is shown to have changed in each comparison, as in "greedy (exact +0.165, unsupported -0.040)"."""
    return " and ".join(
        f"{label} ({', '.join(f'{row.measure} {row.difference.value:+.3f}' for row in by_label[label] if row.gain)})"
        for label in labels
    )


def _lengths(rows: Sequence[Row]) -> str:
    changes = [
        f"{row.difference.value / row.sft.value:+.0%} at {row.comparison}"
        for row in rows
        if row.measure == "tokens" and row.sft.value
    ]
    return f"Answer length changed by {', '.join(changes)}." if changes else ""
