"""Two runs compared from what MLflow keeps of them: settings, data, measures with intervals, prompts that moved most.

comparison = compare(find("brave-otter"), find("champion"))
comparison.changes[0].difference    # second minus first, with its interval
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from longreward.errors import ConfigError, DataError
from longreward.evaluation.comparison import NEUTRAL_MEASURES
from longreward.evaluation.config import JUDGED_MEASURES, MEASURES, EvaluateConfig, Measure
from longreward.evaluation.example_metrics import ExampleMetrics, read_measures
from longreward.evaluation.measures import Decoding
from longreward.evaluation.run_comparison import (
    ChangedExample,
    MeasureChange,
    PromptOverlap,
    RunComparison,
    correct_changes,
)
from longreward.evaluation.statistics import format_p
from longreward.tasks.tracking import history
from longreward.tasks.tracking.history import PastRun

DATA = "dvc."  # the prefix of a stage's tags that hold the hashes of its inputs


@dataclass(frozen=True)
class Difference:
    """A setting, a hash or a commit that the two runs do not share; None where a run does not have it."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class ChangedPrompt:
    """A prompt whose measure changed much, with both answers where the runs keep them."""

    id: str
    document: str
    query: str | None
    before: float
    after: float
    first_answer: str | None
    second_answer: str | None


@dataclass(frozen=True)
class Comparison:
    """All that is known of two runs, first and second; differences are second minus first.

    `measure` at `decoding` ranks the prompts: it is `higher` for so many of them, `lower` for others; some are `moved`.
    """

    first: PastRun
    second: PastRun
    params: tuple[Difference, ...]
    data: tuple[Difference, ...]
    shared: PromptOverlap
    changes: tuple[MeasureChange, ...]
    warnings: tuple[str, ...]
    measure: Measure
    decoding: str
    higher: int
    lower: int
    moved: tuple[ChangedPrompt, ...]


def compare(first: PastRun, second: PastRun, *, measure: str | None = None, top: int = 5) -> Comparison:
    """`measure` ranks the prompts, by default the second run's champion measure where both have it, else the reward.

    Raises ConfigError where a run has no evaluation or did not take `measure`, DataError where its tables are gone.
    """
    sides = [_evaluation(run) for run in (first, second)]
    versus = RunComparison(*(answers for answers, _ in sides))
    tags = [tags for _, tags in sides]
    changes = versus.changes("dpo", _config(second))
    if tags[0].get("dvc.models/sft") != tags[1].get("dvc.models/sft"):
        changes += versus.changes("sft", _config(second))
    changes = correct_changes(changes)
    if not changes:
        raise ConfigError(
            f"{first.name} and {second.name} have no measure at a decoding in common: {_taken(versus.first)} against "
            f"{_taken(versus.second)}; evaluate one of them with the other's `evaluate.temperatures` and judge"
        )
    ranked = _ranking(second, changes, measure)
    moved = versus.moved("dpo", decoding=ranked[1], measure=ranked[0])
    rises = sum(one.after > one.before for one in moved)
    return Comparison(
        first,
        second,
        params=tuple(differences(first.params, second.params)),
        data=tuple(_data(tags[0], tags[1])),
        shared=versus.shared,
        changes=tuple(changes),
        warnings=tuple(_warnings(tags[0], tags[1], changes)),
        measure=ranked[0],
        decoding=ranked[1],
        higher=rises,
        lower=len(moved) - rises,
        moved=_with_answers(moved[:top], first, second, ranked[1]),
    )


def beats_champion(
    champion: str, table: Mapping[str, Any], config: EvaluateConfig, *, judge: str | None
) -> tuple[bool, str]:
    """Return whether the DPO model of `table` is shown to be better than the champion, and what the two measured.

    `champion` is the evaluate run that measured the champion, `judge` the name of this evaluation's judge. Only the
    champion rule's measure and decoding count, on the prompts that both models answered. A model that cannot be
    compared with the champion does not beat it.
    """
    rule, decoding = config.champion, Decoding(config.champion.temperature, 1).name
    try:
        theirs = read_measures(history.read_artifact(champion, history.MEASURES), source="the champion's measures")
    except DataError as error:
        return False, f"the two cannot be compared: {error}"
    their_judge = history.run_tags(champion).get("judge")
    if rule.measure in JUDGED_MEASURES and judge and their_judge and judge != their_judge:
        return False, f"the two cannot be compared: {rule.measure} is by different judges ({their_judge} and {judge})"
    versus = RunComparison(theirs, read_measures(table, source="the measures"))
    if not versus.shared.both:
        return False, "the two cannot be compared: they have no held-out prompt in common"
    wanted = (rule.measure, decoding)
    change = next((one for one in versus.changes("dpo", config) if (one.measure, one.decoding) == wanted), None)
    if change is None:
        return False, f"the two cannot be compared: the champion's {rule.measure} at {decoding} was not measured"
    moved = change.difference
    said = (
        f"{rule.measure} at {decoding} is {change.first.value:.3f} for the champion and {change.second.value:.3f} for "
        f"this model, interval [{moved.low:+.3f}, {moved.high:+.3f}], p {format_p(moved.p)}"
    )
    return change.gain > 0 and moved.is_significant, said


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    """What differs, in the order of the names."""
    names = sorted({*first, *second})
    return [Difference(n, first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)]


def _evaluation(run: PastRun) -> tuple[list[ExampleMetrics], Mapping[str, str]]:
    if run.evaluation is None:
        raise ConfigError(
            f"run {run.name} ({run.status.lower()}) has no evaluation: run the stage, with the same settings, by "
            "`longreward run --stages evaluate`"
        )
    table = history.read_artifact(run.evaluation, history.MEASURES)
    source = f"{history.MEASURES} of run {run.name}"
    return read_measures(table, source=source), history.run_tags(run.evaluation)


def _config(run: PastRun) -> EvaluateConfig:
    """The run's own settings of the intervals, where it has them."""
    asked = {name: run.params.get(f"evaluate.{name}") for name in ("bootstrap_resamples", "confidence", "seed")}
    return EvaluateConfig.parse({k: v for k, v in asked.items() if v is not None}, source=f"run {run.name}")


def _ranking(run: PastRun, changes: Sequence[MeasureChange], asked: str | None) -> tuple[Measure, str]:
    """The measure that ranks prompts and its decoding: greedy where there is one, else the highest temperature."""
    taken = {change.measure for change in changes if change.model == "dpo"}
    if asked is not None and asked not in taken:
        known = ", ".join(measure for measure in MEASURES if measure in taken)
        raise ConfigError(f"measure {asked!r} was not taken in both runs; they have {known}")
    wanted = (asked, run.params.get("evaluate.champion.measure"), "reward", *taken)
    measure = next(measure for name in wanted for measure in MEASURES if measure == name and measure in taken)
    decodings = [change.decoding for change in changes if change.measure == measure and change.model == "dpo"]
    return measure, decodings[-1]  # greedy comes last


def _data(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    sides = []
    for tags in (first, second):
        known = {name.removeprefix(DATA): value for name, value in tags.items() if name.startswith(DATA)}
        code = {"git commit": tags["mlflow.source.git.commit"]} if "mlflow.source.git.commit" in tags else {}
        sides.append(code | ({"judge": tags["judge"]} if "judge" in tags else {}) | known)
    return differences(*sides)


def _warnings(first: Mapping[str, str], second: Mapping[str, str], changes: Sequence[MeasureChange]) -> list[str]:
    judges = [tags.get("judge") for tags in (first, second)]
    if judges[0] == judges[1] or not any(change.measure in JUDGED_MEASURES for change in changes):
        return []
    return [
        f"The judges differ ({judges[0]} and {judges[1]}): the reward and its dimensions are not on one scale. "
        "Evaluate both with one judge, or look at the gold measures and the lengths."
    ]


def _taken(answers: Sequence[ExampleMetrics]) -> str:
    return ", ".join(dict.fromkeys(f"{taken.model} {taken.decoding}" for taken in answers)) or "nothing"


def _with_answers(
    moved: Sequence[ChangedExample], first: PastRun, second: PastRun, decoding: str
) -> tuple[ChangedPrompt, ...]:
    if not moved:
        return ()
    before, after = (_answers(run, decoding) for run in (first, second))
    return tuple(
        ChangedPrompt(
            id=one.second_id,
            document=one.document,
            query=after.get(one.second_id, before.get(one.first_id, {})).get("query"),
            before=one.before,
            after=one.after,
            first_answer=before.get(one.first_id, {}).get("DPO"),
            second_answer=after.get(one.second_id, {}).get("DPO"),
        )
        for one in moved
    )


def _answers(run: PastRun, decoding: str) -> dict[str, dict[str, Any]]:
    """The rows of the table of answers by prompt; empty where the run does not keep it."""
    assert run.evaluation is not None, "its measures were read"
    try:
        table = history.read_artifact(run.evaluation, history.ANSWERS)
    except DataError:
        return {}
    rows = (dict(zip(table["columns"], cells, strict=True)) for cells in table["data"])
    return {row["id"]: row for row in rows if row["decoding"] == decoding}


# A comparison of two runs as Markdown, as plain data, and for a terminal.


if TYPE_CHECKING:
    from rich.table import Table

Cells = tuple[str, ...]
MARKS = {1: "better", -1: "worse", 0: ""}
NAMES = {"sft": "SFT model", "dpo": "DPO model"}
SHOWN_CHARACTERS = 400
NONE = "–"


def markdown(comparison: Comparison) -> str:
    """The whole comparison."""
    first, second = comparison.first.name, comparison.second.name
    parts = [f"# {first} and {second}", "", comparison.shared.sentence, *comparison.warnings]
    for title, rows in (("Settings", comparison.params), ("Data and code", comparison.data)):
        parts += ["", f"## {title} that differ", "", *markdown_table(("", first, second), difference_cells(rows))]
    for model, changes in _by_model(comparison.changes):
        header = ("decoding", "measure", first, second, "difference", "interval", "p", "")
        parts += ["", f"## {NAMES[model]}", "", *markdown_table(header, map(change_cells, changes))]
    parts += ["", f"## {_moved_title(comparison)}"]
    for one in comparison.moved:
        parts += ["", f"**{one.id}** of {one.document}, {_moved(one)}: {_one_line(one.query)}", ""]
        parts += [f"- {first}: {_one_line(one.first_answer)}", f"- {second}: {_one_line(one.second_answer)}"]
    return "\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as plain data; a difference is the second minus the first."""
    runs = {
        side: {"name": run.name, "id": run.id, "evaluation": run.evaluation}
        for side, run in (("first", comparison.first), ("second", comparison.second))
    }
    found = {
        name: [asdict(one) for one in getattr(comparison, name)] for name in ("params", "data", "changes", "moved")
    }
    known: dict[str, Any] = {"shared": asdict(comparison.shared), "warnings": list(comparison.warnings)}
    known |= {name: getattr(comparison, name) for name in ("measure", "decoding", "higher", "lower")}
    return runs | known | found


def show(comparison: Comparison) -> None:
    """Prints it for a terminal."""
    import sys

    from rich.console import Console
    from rich.markup import escape

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    first, second = comparison.first.name, comparison.second.name
    with console.capture() as drawn:  # printed by print, which leaves a reader that went away to the command
        for title, rows in (("Settings", comparison.params), ("Data and code", comparison.data)):
            if rows:
                console.print(_table(f"{title} that differ", ("", first, second), difference_cells(rows)), "")
            else:
                console.print(f"{title}: the same\n")
        for model, changes in _by_model(comparison.changes):
            header = ("decoding", "measure", first, second, "difference", "interval", "p", "")
            console.print(_table(f"{NAMES[model]} on held-out prompts", header, map(change_cells, changes)), "")
        console.print(comparison.shared.sentence)
        for warning in comparison.warnings:
            console.print(f"[yellow]{escape(warning)}[/yellow]")
        console.print(f"\n[italic]{_moved_title(comparison)}[/italic]")
        for one in comparison.moved:
            console.print(f"\n[bold]{escape(one.id)}[/bold] {_moved(one)}  {escape(_one_line(one.query))}")
            for name, answer in ((first, one.first_answer), (second, one.second_answer)):
                console.print(f"  [dim]{escape(name)}:[/dim] {escape(_one_line(answer))}")
    print(drawn.get(), end="")


def change_cells(change: MeasureChange) -> Cells:
    """One measure as text: decoding, measure, first, second, difference, interval, corrected p, better or worse."""
    digits = 1 if change.measure in NEUTRAL_MEASURES else 3
    moved = change.difference
    return (
        change.decoding,
        change.measure,
        f"{change.first.value:.{digits}f}",
        f"{change.second.value:.{digits}f}",
        f"{moved.value:+.{digits}f}",
        f"{moved.low:+.{digits}f} … {moved.high:+.{digits}f}",
        corrected_p(change.measure, asdict(moved)),
        MARKS[change.gain],
    )


def corrected_p(measure: str, difference: Mapping[str, Any]) -> str:
    """Return the corrected p-value as text; empty for a neutral measure and in tables of versions without it."""
    p = difference.get("p_corrected")
    return "" if measure in NEUTRAL_MEASURES or p is None else format_p(p)


def difference_cells(rows: Iterable[Difference]) -> list[Cells]:
    """One setting or hash as text; hashes and commits cut to what tells them apart."""
    return [(row.name, *(NONE if value is None else value for value in (row.first, row.second))) for row in rows]


def markdown_table(header: Sequence[str], rows: Iterable[Cells]) -> list[str]:
    """Lines of a Markdown table; "none" where it would be empty."""
    body = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body] if body else ["none"]


def _by_model(changes: Iterable[MeasureChange]) -> list[tuple[str, list[MeasureChange]]]:
    found: dict[str, list[MeasureChange]] = {}
    for change in changes:
        found.setdefault(change.model, []).append(change)
    return list(found.items())


def _moved_title(comparison: Comparison) -> str:
    by = f"{comparison.measure} at {comparison.decoding}"
    if not comparison.higher and not comparison.lower:
        return f"No shared prompt moved, by {by}"
    return f"Prompts that moved most, by {by} (higher for {comparison.higher}, lower for {comparison.lower})"


def _moved(one: ChangedPrompt) -> str:
    return f"{one.before:.3f} → {one.after:.3f}"


def _one_line(text: str | None) -> str:
    if text is None:
        return "(not kept)"
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def _table(title: str, header: Sequence[str], rows: Iterable[Cells]) -> "Table":
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False)
    for place, column in enumerate(header):
        table.add_column(escape(column), overflow="fold", justify="right" if len(header) > 3 and place > 1 else "left")
    last = ""
    for number, row in enumerate(rows):
        if number and row[0] != last and len(header) > 3:
            table.add_section()
        shown = ("", *row[1:]) if row[0] == last else row
        last = row[0]
        table.add_row(*(escape(cell) for cell in shown))
    return table
