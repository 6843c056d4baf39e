"""The report of an evaluation: means, comparisons, the conclusion, and whether the champion rule is met.

At temperature 1 a model improves by merely sharpening its distribution. The conclusion therefore uses three
comparisons: both models at 1, the trained model at 1 against SFT at 0.5, and both greedy. Only the last two show
learning. Gold measures decide if there are any, otherwise the reward.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from longreward.evaluation.comparison import (
    LOWER_IS_BETTER,
    NEUTRAL_MEASURES,
    MeasureChange,
    compare,
    comparisons,
    correct_changes,
    means,
)
from longreward.evaluation.config import GOLD_MEASURES, EvaluateConfig, Measure
from longreward.evaluation.measures import AnswerMeasures, Decoding
from longreward.evaluation.significance import least_documents
from longreward.evaluation.statistics import Estimate, Observation, format_p
from longreward.records import Role
from longreward.utils.markdown import Cells, markdown_table
from longreward.utils.plurals import pluralize

Finding = Literal["learning", "only sharpening", "no improvement", "not compared"]
ModelDecoding = tuple[Role, str]
IMPROVEMENT_LABELS = {1: "better", -1: "worse", 0: ""}
HEADLINE_MEASURES = (*GOLD_MEASURES, "reward", "short")
CHANGE_HEADER = ("difference", "interval", "p")


@dataclass(frozen=True)
class Evaluation:
    """All rows, the conclusion, and whether the champion rule is met."""

    rows: tuple[MeasureChange, ...]
    finding: Finding
    sentence: str
    champion: bool
    champion_reason: str
    means: Mapping[ModelDecoding, Mapping[Measure, Estimate]]
    answers: Mapping[ModelDecoding, int]
    unscored: Mapping[ModelDecoding, int]
    truncated: Mapping[ModelDecoding, int]
    """Answers that reached the token limit."""

    def metrics(self, role: Role) -> dict[str, float]:
        """Return the metrics of one model: `recall/t1`, `reward/greedy`, …; the names are the same for every model."""
        metrics: dict[str, float] = {}
        for (model, decoding), estimates in self.means.items():
            if model == role:
                metrics |= {f"{measure}/{decoding}": estimate.value for measure, estimate in estimates.items()}
                metrics[f"unscored/{decoding}"] = float(self.unscored[model, decoding])
                metrics[f"truncated/{decoding}"] = float(self.truncated[model, decoding])
        return metrics

    def headline(self) -> dict[str, float]:
        """Return the trained model's main measures and their differences from the SFT model's.

        By names such as `dpo/exact/greedy`; `difference/exact/greedy` with its interval, `…_low` and `…_high`.
        """
        metrics: dict[str, float] = {"champion": float(self.champion)}
        for row in self.rows:
            if row.comparison not in ("t1", "greedy") or row.measure not in (*HEADLINE_MEASURES, "tokens"):
                continue
            metrics[f"dpo/{row.measure}/{row.comparison}"] = row.second.value
            if row.measure in HEADLINE_MEASURES:
                name, difference = f"difference/{row.measure}/{row.comparison}", row.difference
                metrics |= {name: difference.value, f"{name}_low": difference.low, f"{name}_high": difference.high}
        return metrics

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation as plain data."""
        return {
            "finding": self.finding,
            "sentence": self.sentence,
            "champion": self.champion,
            "champion_reason": self.champion_reason,
            "rows": [asdict(row) for row in self.rows],
            "sft": self.metrics("sft"),
            "dpo": self.metrics("dpo"),
        }


def summarize(config: EvaluateConfig, measured: Iterable[AnswerMeasures]) -> Evaluation:
    """Aggregate the measures of all answers."""
    observations: dict[ModelDecoding, dict[Measure, list[Observation]]] = defaultdict(lambda: defaultdict(list))
    answers, unscored, truncated = Counter[ModelDecoding](), Counter[ModelDecoding](), Counter[ModelDecoding]()
    for answer in measured:
        key = (answer.role, answer.decoding)
        judged = "short" not in answer.values
        answers[key] += judged
        unscored[key] += judged and "reward" not in answer.values
        truncated[key] += judged and answer.response.truncated
        by_measure = observations[key]  # also creates the entry of an answer without any measure
        for measure, value in answer.values.items():
            by_measure[measure].append((answer.document_id, value))
    rows = correct_changes(
        [
            row
            for label, sft, dpo in comparisons(config)
            for row in compare(
                config,
                observations.get(("sft", sft), {}),
                observations.get(("dpo", dpo), {}),
                model="dpo",
                comparison=label,
            )
        ]
    )
    finding, sentence = summarize_effect(rows)
    champion, reason = _apply_champion_rule(config, rows)
    return Evaluation(
        rows=tuple(rows),
        finding=finding,
        sentence=sentence,
        champion=champion,
        champion_reason=reason,
        means={key: means(config, values) for key, values in observations.items()},
        answers=answers,
        unscored=unscored,
        truncated=truncated,
    )


def summarize_effect(rows: Sequence[MeasureChange]) -> tuple[Finding, str]:
    """Return the finding and the sentences that explain it."""
    decisive = [row for row in rows if row.measure in GOLD_MEASURES]
    decisive = decisive or [row for row in rows if row.measure == "reward"]
    if not decisive:
        return "not compared", "Nothing was compared: one of the two models has no measured answers."
    by_label: dict[str, list[MeasureChange]] = defaultdict(list)
    for row in decisive:
        by_label[row.comparison].append(row)
    changes = {label: [row.improvement for row in label_rows] for label, label_rows in by_label.items()}
    better = [label for label, change in changes.items() if max(change) > 0 and min(change) >= 0]
    mixed = [label for label, change in changes.items() if {1, -1} <= set(change)]
    # Comparisons in which a sharper distribution alone is no advantage.
    learning = [label for label in by_label if label == "greedy" or " against " in label]
    learned = [label for label in learning if label in better]
    not_learned = [label for label in learning if label not in better]
    finding: Finding = "learning" if learned else "only sharpening" if better else "no improvement"
    sentences = {
        "learning": "Learning is shown: the trained model is better than the SFT model in comparisons where a sharper "
        f"distribution alone is no advantage, {_list_changes(by_label, learned)}.",
        "only sharpening": f"Only sharpening is shown: the trained model is better at {', '.join(better)}, but not "
        f"where a sharper distribution alone is no advantage ({', '.join(learning) or 'not measured'}).",
        "no improvement": "No improvement is shown: in no comparison is a measure better and none worse.",
    }
    parts = [sentences[finding]]
    documents = max(row.difference.documents for row in decisive)
    tests = sum(row.measure not in NEUTRAL_MEASURES for row in rows)
    min_documents = least_documents(decisive[0].difference.level, tests)
    if documents < min_documents:
        parts = [
            f"Nothing can be shown: {pluralize(documents, 'held-out document')} {'is' if documents == 1 else 'are'} "
            f"too few for {pluralize(tests, 'comparison')}, at least {min_documents} are needed."
        ]
    elif finding != "learning" and (limits := _list_limits(by_label, learning)):
        parts.append(f"The {pluralize(documents, 'held-out document')} can detect a true difference of {limits}.")
    if finding == "learning" and not_learned:
        parts.append(f"It is not better at {', '.join(not_learned)}.")
    if mixed_learning := [label for label in learning if label in mixed]:
        parts.append(f"Mixed, and therefore counted as not better: {_list_changes(by_label, mixed_learning)}.")
    if lengths := [
        f"{row.difference.value / row.first.value:+z.0%} at {row.comparison}"
        for row in rows
        if row.measure == "tokens" and row.first.value
    ]:
        parts.append(f"Answer length changed by {', '.join(lengths)}.")
    return finding, " ".join(parts)


def _list_limits(by_label: Mapping[str, Sequence[MeasureChange]], labels: Iterable[str]) -> str:
    """Return the detectable difference of each comparison without an effect, such as "0.41 in reward at greedy"."""
    return ", ".join(
        f"{row.difference.detectable:.2f} in {row.measure} at {label}"
        for label in labels
        for row in by_label[label]
        if not row.improvement and row.difference.detectable is not None
    )


def _list_changes(by_label: Mapping[str, Sequence[MeasureChange]], labels: Iterable[str]) -> str:
    """Return the significant changes by comparison, such as "greedy (exact +0.165, unsupported -0.040)"."""
    return " and ".join(
        f"{label} "
        f"({', '.join(f'{row.measure} {row.difference.value:+.3f}' for row in by_label[label] if row.improvement)})"
        for label in labels
    )


def _apply_champion_rule(config: EvaluateConfig, rows: Iterable[MeasureChange]) -> tuple[bool, str]:
    rule = config.champion
    label = Decoding(rule.temperature, 1).name
    row = next((row for row in rows if row.comparison == label and row.measure == rule.measure), None)
    if row is None:
        return False, f"{rule.measure} was not measured at {label}"
    difference = row.difference
    gain = -difference.value if rule.measure in LOWER_IS_BETTER else difference.value
    values = f"{rule.measure} at {label}: {row.first.value:.3f} → {row.second.value:.3f}"
    if gain <= rule.min_difference:
        return False, f"{values}, not better by more than {rule.min_difference:g}"
    # A single measure that was selected in the settings needs no correction for the other rows.
    if rule.interval_excludes_zero and not difference.is_significant:
        interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
        return False, f"{values}, not significant: interval {interval}, p {format_p(difference.p)}"
    return True, values


def markdown(evaluation: Evaluation) -> str:
    """Return the report as Markdown."""
    counts = (
        (*key, str(count), str(evaluation.unscored[key]), str(evaluation.truncated[key]))
        for key, count in evaluation.answers.items()
    )
    lines = [
        "# SFT against DPO on held-out documents",
        "",
        evaluation.sentence,
        "",
        f"Champion rule met: {'yes' if evaluation.champion else 'no'} ({evaluation.champion_reason}).",
        "",
        *markdown_table(
            ("comparison", "measure", "SFT", "DPO", *CHANGE_HEADER, "", "detectable"),
            ((*change_cells(row), _detectable_cell(row)) for row in evaluation.rows),
        ),
        "",
        _describe_method(evaluation) + "`t1 against t0.5` compares the trained model at temperature 1 with the SFT "
        "model at 0.5. recall, unsupported and exact are measured with the facts of the corpus, which no judge sees. "
        "reward and its four dimensions are the judge's. short is the share of short instructions, without a document, "
        "that are answered correctly.",
        "",
        *markdown_table(("model", "decoding", "answers", "without a reward", "truncated"), counts),
    ]
    return "\n".join(lines) + "\n"


def change_cells(change: MeasureChange) -> Cells:
    """Return the row of a measure: comparison, measure, first, second, difference, interval, p, better or worse."""
    values = value_cells(change.measure, change.first.value, change.second.value, asdict(change.difference))
    return (change.comparison, change.measure, *values, IMPROVEMENT_LABELS[change.improvement])


def _detectable_cell(change: MeasureChange) -> str:
    detectable = change.difference.detectable
    return "" if detectable is None or change.measure in NEUTRAL_MEASURES else f"{detectable:.3f}"


def value_cells(measure: str, first: float, second: float, difference: Mapping[str, Any]) -> Cells:
    """Return two values and their difference with interval and corrected p-value, which neutral measures lack."""
    neutral = measure in NEUTRAL_MEASURES
    digits = 1 if neutral else 3
    p = difference.get("p_corrected")
    return (
        f"{first:.{digits}f}",
        f"{second:.{digits}f}",
        f"{difference['value']:+.{digits}f}",
        f"[{difference['low']:+.{digits}f}, {difference['high']:+.{digits}f}]",
        "" if neutral or p is None else format_p(p),
    )


def _describe_method(evaluation: Evaluation) -> str:
    if not evaluation.rows:
        return ""
    level = evaluation.rows[0].difference.level
    tests = sum(row.measure not in NEUTRAL_MEASURES for row in evaluation.rows)
    return (
        f"Intervals ({1 - level:.0%}) are over documents. p is from a paired permutation test over documents, "
        f"corrected for all {tests} comparisons (Holm). A difference is marked better or worse if p is at most "
        f"{level:.2g}: at most {level:.0%} of reports on two equal models have a mark. Intervals also hold for skewed "
        "measures and are wider than the test requires, so that a marked one can include zero. A true difference of "
        "`detectable` would be shown with a power of 80 % if it were the only comparison; the more documents, the "
        "smaller it is. "
    )
