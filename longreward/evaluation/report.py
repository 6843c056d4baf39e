"""What the comparison shows: learning, or only a sharper distribution.

At temperature 1 a model gains by merely putting more weight on what it already preferred. So three comparisons stand
side by side: both at 1; the trained model at 1 against SFT at 0.5; both greedy. Only the last two show learning. Gold
measures decide where there are any, else the reward.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from longreward.evaluation.comparison import (
    LOWER_IS_BETTER,
    NEUTRAL_MEASURES,
    Row,
    compare,
    comparisons,
    correct_rows,
    means,
)
from longreward.evaluation.config import GOLD_MEASURES, EvaluateConfig, Measure
from longreward.evaluation.measures import AnswerMeasures, Decoding
from longreward.evaluation.significance import least_documents
from longreward.evaluation.statistics import Estimate, Observation, format_p
from longreward.records import Role

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
    tests = sum(row.measure not in NEUTRAL_MEASURES for row in rows)
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


# All that an evaluation came to: means, comparisons, what they show, and whether there is a new champion.


@dataclass(frozen=True)
class Evaluation:
    """All rows, the finding in words, and whether the champion rule is met."""

    rows: tuple[Row, ...]
    finding: Finding
    sentence: str
    champion: bool
    champion_reason: str
    means: Mapping[tuple[Role, str], Mapping[Measure, Estimate]]
    answers: Mapping[tuple[Role, str], int]
    unscored: Mapping[tuple[Role, str], int]
    truncated: Mapping[tuple[Role, str], int]
    """Answers that reached the limit of tokens before they ended."""

    def figures(self, role: Role) -> dict[str, float]:
        """One model's metrics, under the same names whichever model it is: `recall/t1`, `reward/greedy`, …"""
        figures: dict[str, float] = {}
        for (whose, decoding), estimates in self.means.items():
            if whose == role:
                figures |= {f"{measure}/{decoding}": estimate.value for measure, estimate in estimates.items()}
                figures[f"unscored/{decoding}"] = float(self.unscored[whose, decoding])
                figures[f"truncated/{decoding}"] = float(self.truncated[whose, decoding])
        return figures

    def headline(self) -> dict[str, float]:
        """The differences that matter most, with their intervals: `difference/exact/greedy`, `…_low`, `…_high`."""
        figures: dict[str, float] = {"champion": float(self.champion)}
        for row in self.rows:
            if row.comparison in ("t1", "greedy") and row.measure in (*GOLD_MEASURES, "reward", "short"):
                name = f"difference/{row.measure}/{row.comparison}"
                change = row.difference
                figures |= {name: change.value, f"{name}_low": change.low, f"{name}_high": change.high}
        return figures

    def as_json(self) -> dict[str, Any]:
        """The table as plain data."""
        return {
            "finding": self.finding,
            "sentence": self.sentence,
            "champion": self.champion,
            "champion_reason": self.champion_reason,
            "rows": [asdict(row) for row in self.rows],
            "sft": self.figures("sft"),
            "dpo": self.figures("dpo"),
        }


def summarize(config: EvaluateConfig, measured: Iterable[AnswerMeasures]) -> Evaluation:
    """Means of each model and decoding, the three comparisons, the finding and the champion rule."""
    observations: dict[tuple[Role, str], dict[Measure, list[Observation]]] = {}
    answers: dict[tuple[Role, str], int] = {}
    unscored: dict[tuple[Role, str], int] = {}
    truncated: dict[tuple[Role, str], int] = {}
    for one in measured:
        place = (one.role, one.decoding)
        judged = "short" not in one.values
        answers[place] = answers.get(place, 0) + judged
        unscored[place] = unscored.get(place, 0) + (judged and "reward" not in one.values)
        truncated[place] = truncated.get(place, 0) + (judged and one.response.truncated)
        taken = observations.setdefault(place, {})
        for name, value in one.values.items():
            taken.setdefault(name, []).append((one.document_id, value))
    rows = correct_rows(
        [
            row
            for label, sft, dpo in comparisons(config)
            for row in compare(config, label, observations.get(("sft", sft), {}), observations.get(("dpo", dpo), {}))
        ]
    )
    finding, sentence = summarize_effect(rows)
    champion, reason = _champion(config, rows)
    return Evaluation(
        rows=rows,
        finding=finding,
        sentence=sentence,
        champion=champion,
        champion_reason=reason,
        means={place: means(config, taken) for place, taken in observations.items()},
        answers=answers,
        unscored=unscored,
        truncated=truncated,
    )


def _champion(config: EvaluateConfig, rows: Iterable[Row]) -> tuple[bool, str]:
    rule = config.champion
    label = Decoding(rule.temperature, 1).name
    row = next((row for row in rows if row.comparison == label and row.measure == rule.measure), None)
    if row is None:
        return False, f"{rule.measure} was not measured at {label}"
    better = -row.difference.value if rule.measure in LOWER_IS_BETTER else row.difference.value
    shown = f"{rule.measure} at {label}: {row.sft.value:.3f} → {row.dpo.value:.3f}"
    if better <= rule.min_difference:
        return False, f"{shown}, which is no improvement by more than {rule.min_difference:g}"
    change = row.difference  # one measure, chosen in the settings: no correction for the other rows
    if rule.interval_excludes_zero and not change.is_significant:
        interval = f"[{change.low:+.3f}, {change.high:+.3f}]"
        return False, f"{shown}, which may be chance: interval {interval}, p {format_p(change.p)}"
    return True, shown


# The comparison as a Markdown report and as the rows of a table.


HEADER = ("comparison", "measure", "SFT", "DPO", "difference", "interval", "p", "")


def cells(row: Row) -> tuple[str, ...]:
    """One row as text, in the order of HEADER; the last cell says better, worse or nothing."""
    digits = 1 if row.measure in NEUTRAL_MEASURES else 3
    mark = {1: "better", -1: "worse", 0: ""}[row.gain]
    return (
        row.comparison,
        row.measure,
        f"{row.sft.value:.{digits}f}",
        f"{row.dpo.value:.{digits}f}",
        f"{row.difference.value:+.{digits}f}",
        f"[{row.difference.low:+.{digits}f}, {row.difference.high:+.{digits}f}]",
        "" if row.measure in NEUTRAL_MEASURES else format_p(row.difference.p_corrected),
        mark,
    )


def markdown(evaluation: Evaluation) -> str:
    """The whole report."""
    lines = [
        "# SFT against DPO on held-out documents",
        "",
        evaluation.sentence,
        "",
        f"Champion rule met: {'yes' if evaluation.champion else 'no'} ({evaluation.champion_reason}).",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in evaluation.rows]
    lines += [
        "",
        _method(evaluation) + "`t1 against t0.5` is the trained model at temperature 1 "
        "against the SFT model at 0.5. recall, unsupported and exact are measured with the corpus's own facts, which "
        "no judge sees; reward and its four dimensions are the judge's; short is the share of short instructions, "
        "without a document, that are answered right.",
        "",
        "| model | decoding | answers | without a reward | truncated |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {role} | {decoding} | {count} | {evaluation.unscored[place]} | {evaluation.truncated[place]} |"
        for place, count in evaluation.answers.items()
        for role, decoding in [place]
    ]
    return "\n".join(lines) + "\n"


def _method(evaluation: Evaluation) -> str:
    if not evaluation.rows:
        return ""
    level = evaluation.rows[0].difference.level
    tests = sum(row.measure not in NEUTRAL_MEASURES for row in evaluation.rows)
    return (
        f"Intervals ({1 - level:.0%}) are over documents, each for its own measure. p is that of a paired permutation "
        f"test over documents, corrected for all {tests} comparisons (Holm). A difference is marked better or worse "
        f"where p is at most {level:.2g}: of reports on two equal models, at most {level:.0%} have a mark. Intervals "
        "also hold for skewed measures and are wider than the test needs, so that a marked one can hold zero. "
    )
