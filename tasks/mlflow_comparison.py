"""Compare two runs by what MLflow has of them: settings, data, measures with intervals, prompts that changed most.

comparison = compare(find_run("brave-otter", …), find_run("champion", …))
comparison.changes[0].difference    # second minus first, with its interval
print(to_markdown(comparison))
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from longreward.errors import ConfigError, DataError
from longreward.evaluation.comparison import MeasureChange, correct_changes
from longreward.evaluation.config import JUDGED_MEASURES, MEASURES, EvaluateConfig, Measure
from longreward.evaluation.example_metrics import ExampleMetrics, read_measures
from longreward.evaluation.measures import Decoding
from longreward.evaluation.report import CHANGE_HEADER, change_cells
from longreward.evaluation.run_comparison import PromptOverlap, RunComparison
from longreward.evaluation.statistics import format_p
from longreward.tasks.tracking.history import ANSWERS, PastRun, read_artifact, run_tags
from longreward.tasks.tracking.history import MEASURES as MEASURES_FILE
from longreward.tasks.tracking.run import DVC_TAG
from longreward.utils.console import output_width, uses_color
from longreward.utils.markdown import Cells, markdown_table
from longreward.utils.markdown_text import render_text

SFT_TAG = f"{DVC_TAG}models/sft"
COMMIT_TAG = "mlflow.source.git.commit"
MODEL_TITLES = {"sft": "SFT model", "dpo": "DPO model"}
MAX_ANSWER_CHARACTERS = 400
MISSING = "–"


@dataclass(frozen=True)
class Difference:
    """A setting, hash or commit in which the runs differ; None if a run does not have it."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class ChangedPrompt:
    """A prompt whose measure changed, with both answers if the runs keep them."""

    id: str
    document: str
    query: str | None
    before: float
    after: float
    first_answer: str | None
    second_answer: str | None


@dataclass(frozen=True)
class Comparison:
    """Two runs; differences are second minus first.

    `measure` at `decoding` ranks the prompts: it is `higher` for so many of them and `lower` for so many. The ones
    that changed most are in `prompts`.
    """

    first: PastRun
    second: PastRun
    params: tuple[Difference, ...]
    data: tuple[Difference, ...]
    overlap: PromptOverlap
    changes: tuple[MeasureChange, ...]
    warnings: tuple[str, ...]
    measure: Measure
    decoding: str
    higher: int
    lower: int
    prompts: tuple[ChangedPrompt, ...]


def compare(first: PastRun, second: PastRun, *, measure: str | None = None, top: int = 5) -> Comparison:
    """Compare the models of two runs on held-out prompts.

    Args:
        measure: ranks the prompts; by default the second run's champion measure if both have it, else the reward.
        top: how many prompts to return.

    Raises ConfigError if a run has no evaluation or not this measure, DataError if its tables are gone.
    """
    first_metrics, first_tags = _read_evaluation(first)
    second_metrics, second_tags = _read_evaluation(second)
    runs = RunComparison(first_metrics, second_metrics)
    intervals = {name: second.params.get(f"evaluate.{name}") for name in ("bootstrap_resamples", "confidence", "seed")}
    config = EvaluateConfig.parse(
        {name: value for name, value in intervals.items() if value is not None}, source=f"run {second.name}"
    )
    changes = runs.changes("dpo", config)
    if first_tags.get(SFT_TAG) != second_tags.get(SFT_TAG):
        changes += runs.changes("sft", config)
    changes = correct_changes(changes)
    if not changes:
        decodings = (
            ", ".join(dict.fromkeys(f"{example.model} {example.decoding}" for example in metrics)) or "nothing"
            for metrics in (first_metrics, second_metrics)
        )
        raise ConfigError(
            f"{first.name} and {second.name} have no measure at a decoding in common: {' against '.join(decodings)}; "
            "evaluate one of them with the other's `evaluate.temperatures` and judge"
        )
    ranking, decoding = _ranking(second, changes, measure)
    prompts = runs.changed_examples("dpo", decoding=decoding, measure=ranking)
    higher = sum(prompt.after > prompt.before for prompt in prompts)
    shown = prompts[:top]
    first_answers, second_answers = (_read_answers(run, decoding) if shown else {} for run in (first, second))
    judges = (first_tags.get("judge"), second_tags.get("judge"))
    warnings: tuple[str, ...] = ()
    if judges[0] != judges[1] and any(change.measure in JUDGED_MEASURES for change in changes):
        warnings = (
            f"The judges differ ({judges[0]} and {judges[1]}): the reward and its dimensions are not on one scale. "
            "Evaluate both with one judge, or look at the gold measures and the lengths.",
        )
    return Comparison(
        first,
        second,
        params=tuple(differences(first.params, second.params)),
        data=tuple(differences(_data_versions(first_tags), _data_versions(second_tags))),
        overlap=runs.overlap,
        changes=tuple(changes),
        warnings=warnings,
        measure=ranking,
        decoding=decoding,
        higher=higher,
        lower=len(prompts) - higher,
        prompts=tuple(
            ChangedPrompt(
                id=prompt.second_id,
                document=prompt.document,
                query=second_answers.get(prompt.second_id, first_answers.get(prompt.first_id, {})).get("query"),
                before=prompt.before,
                after=prompt.after,
                first_answer=first_answers.get(prompt.first_id, {}).get("DPO"),
                second_answer=second_answers.get(prompt.second_id, {}).get("DPO"),
            )
            for prompt in shown
        ),
    )


def beats_champion(
    champion: str, measures: Mapping[str, Any], config: EvaluateConfig, *, judge: str | None
) -> tuple[bool, str]:
    """Return whether the DPO model is shown to be better than the champion, and what the two measured.

    Only the champion rule's measure and decoding count, on the prompts that both models answered. A model that cannot
    be compared with the champion does not beat it.

    Args:
        champion: the id of the evaluate run of the champion.
        measures: the table of measures of this evaluation.
        judge: the name of this evaluation's judge.
    """
    rule = config.champion
    decoding = Decoding(rule.temperature, 1).name
    try:
        champion_metrics = read_measures(read_artifact(champion, MEASURES_FILE), source="the champion's measures")
    except DataError as error:
        return False, f"the two cannot be compared: {error}"
    champion_judge = run_tags(champion).get("judge")
    if rule.measure in JUDGED_MEASURES and judge and champion_judge and judge != champion_judge:
        judges = f"{champion_judge} and {judge}"
        return False, f"the two cannot be compared: {rule.measure} is by different judges ({judges})"
    runs = RunComparison(champion_metrics, read_measures(measures, source="the measures"))
    if not runs.overlap.both:
        return False, "the two cannot be compared: they have no held-out prompt in common"
    changes = {(change.measure, change.comparison): change for change in runs.changes("dpo", config)}
    change = changes.get((rule.measure, decoding))
    if change is None:
        return False, f"the two cannot be compared: the champion's {rule.measure} at {decoding} was not measured"
    difference = change.difference
    message = (
        f"{rule.measure} at {decoding} is {change.first.value:.3f} for the champion and {change.second.value:.3f} for "
        f"this model, interval [{difference.low:+.3f}, {difference.high:+.3f}], p {format_p(difference.p)}"
    )
    return change.improvement > 0 and difference.is_significant, message


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    """Return the names whose values differ, in alphabetical order."""
    names = sorted({*first, *second})
    return [Difference(n, first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)]


def _read_evaluation(run: PastRun) -> tuple[list[ExampleMetrics], Mapping[str, str]]:
    """Return the measures of each example, and the tags of the evaluate run."""
    if run.evaluation is None:
        raise ConfigError(
            f"run {run.name} ({run.status.lower()}) has no evaluation: run the stage, with the same settings, by "
            "`longreward run --stages evaluate`"
        )
    table = read_artifact(run.evaluation, MEASURES_FILE)
    return read_measures(table, source=f"{MEASURES_FILE} of run {run.name}"), run_tags(run.evaluation)


def _ranking(run: PastRun, changes: Sequence[MeasureChange], requested: str | None) -> tuple[Measure, str]:
    """Return the measure that ranks prompts and its decoding: greedy if there is one, else the highest temperature."""
    available = {change.measure for change in changes if change.model == "dpo"}
    if requested is not None and requested not in available:
        names = ", ".join(measure for measure in MEASURES if measure in available)
        raise ConfigError(f"measure {requested!r} was not taken in both runs; they have {names}")
    preferred = (requested, run.params.get("evaluate.champion.measure"), "reward", *available)
    measure = next(measure for name in preferred for measure in MEASURES if measure == name and measure in available)
    decodings = [change.comparison for change in changes if change.measure == measure and change.model == "dpo"]
    return measure, decodings[-1]  # greedy comes last


def _data_versions(tags: Mapping[str, str]) -> dict[str, str]:
    versions = {tag.removeprefix(DVC_TAG): value for tag, value in tags.items() if tag.startswith(DVC_TAG)}
    named = {"git commit": COMMIT_TAG, "judge": "judge"}
    return versions | {name: tags[tag] for name, tag in named.items() if tag in tags}


def _read_answers(run: PastRun, decoding: str) -> dict[str, dict[str, Any]]:
    """Return the rows of the table of answers by prompt id; empty if the run does not keep it."""
    assert run.evaluation is not None, "its measures were read"
    try:
        table = read_artifact(run.evaluation, ANSWERS)
    except DataError:
        return {}
    rows = (dict(zip(table["columns"], cells, strict=True)) for cells in table["data"])
    return {row["id"]: row for row in rows if row["decoding"] == decoding}


def print_comparison(comparison: Comparison) -> None:
    """Print the comparison as text of the terminal's width."""
    print(render_text(to_markdown(comparison), width=output_width(), color=uses_color(sys.stdout)), end="")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain data."""
    runs = {
        side: {"name": run.name, "id": run.id, "evaluation": run.evaluation}
        for side, run in (("first", comparison.first), ("second", comparison.second))
    }
    rows = {
        name: [asdict(row) for row in getattr(comparison, name)] for name in ("params", "data", "changes", "prompts")
    }
    values = {name: getattr(comparison, name) for name in ("measure", "decoding", "higher", "lower")}
    return runs | {"overlap": asdict(comparison.overlap), "warnings": list(comparison.warnings)} | values | rows


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown page."""
    first, second = comparison.first.name, comparison.second.name
    lines = [f"# {first} and {second}", "", comparison.overlap.sentence, *comparison.warnings]
    for title, rows in (("Settings", comparison.params), ("Data and code", comparison.data)):
        lines += ["", f"## {title} that differ", "", *markdown_table(("", first, second), map(difference_cells, rows))]
    for model, changes in groupby(comparison.changes, key=lambda change: change.model):
        header = ("decoding", "measure", first, second, *CHANGE_HEADER, "")
        lines += ["", f"## {MODEL_TITLES[model]}", "", *markdown_table(header, map(change_cells, changes))]
    ranking = f"{comparison.measure} at {comparison.decoding}"
    if comparison.higher or comparison.lower:
        counts = f"higher for {comparison.higher}, lower for {comparison.lower}"
        lines += ["", f"## Prompts that changed most, by {ranking} ({counts})"]
    else:
        lines += ["", f"## No shared prompt changed, by {ranking}"]
    for prompt in comparison.prompts:
        change = f"{prompt.before:.3f} → {prompt.after:.3f}"
        lines += ["", f"**{prompt.id}** of {prompt.document}, {change}: {_single_line(prompt.query)}", ""]
        lines += [
            f"- {first}: {_single_line(prompt.first_answer)}",
            f"- {second}: {_single_line(prompt.second_answer)}",
        ]
    return "\n".join(lines) + "\n"


def difference_cells(row: Difference) -> Cells:
    """Return the row of a setting or hash."""
    return (row.name, row.first or MISSING, row.second or MISSING)


def _single_line(text: str | None) -> str:
    if text is None:
        return "(not kept)"
    line = " ".join(text.split())
    return line if len(line) <= MAX_ANSWER_CHARACTERS else line[: MAX_ANSWER_CHARACTERS - 1] + "…"
