"""The text at the top of a pipeline run's page in MLflow: what it is, what went wrong, how its model did, what ran."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.errors import LongRewardError
from longreward.evaluation.comparison import NEUTRAL_MEASURES
from longreward.tasks.mlflow_comparison import (
    Comparison,
    change_cells,
    compare,
    corrected_p,
    difference_cells,
    markdown_table,
)
from longreward.tasks.tracking import CHAMPION_BEFORE, history
from longreward.tasks.tracking.history import PastRun, PastStage

HEADLINE = ("recall", "unsupported", "exact", "reward", "tokens")
MODEL = ("policy.sft_model", "policy.base_model")
MOST_WORDS = 1500  # of an error
MOST_SETTINGS = 25


def run_description(run: PastRun) -> str:
    """Markdown for a run that has ended, with or without an evaluation."""
    stages = history.stage_runs(run)
    parts = [*_what_failed(run, stages), *_what_it_is(run, stages)]
    if run.evaluation:
        parts += [*_against_sft(run.evaluation), *_against_champion(run)]
    elif run.status == "FINISHED":
        parts += ["", "No model of this run has been evaluated."]
    parts += _stages(run, stages)
    return "\n".join(parts)


def _what_it_is(run: PastRun, stages: Sequence[PastStage]) -> Iterator[str]:
    model = next((run.params[name] for name in MODEL if run.params.get(name) not in (None, "", "None")), "unknown")
    judges = [part.tags["judge"] for part in stages if part.tags.get("judge")]
    judge = judges[-1] if judges else run.params.get("judge.kind", "unknown")
    code = run.tags.get("mlflow.source.git.commit", "")[:10] or "unknown"
    changed = " with uncommitted changes" if run.tags.get("longreward.uncommitted") == "true" else ""
    yield f"**{run.name}** {run.status.lower()} after {_time(run.seconds)}"
    yield ""
    yield f"- model `{model}`, judge `{judge}`, code `{code}`{changed}"
    if overrides := run.tags.get("longreward.overrides"):
        yield f"- settings of this run alone: `{', '.join(overrides.split(chr(10)))}`"
    if hashes := _hashes(stages):
        yield "- DVC: " + ", ".join(f"{path} `{hash_[:10]}`" for path, hash_ in hashes.items())


def _hashes(stages: Sequence[PastStage]) -> Mapping[str, str]:
    """Folders' hashes, the newest of each; a file inside a folder has the folder's."""
    known: dict[str, str] = {}
    for part in stages:
        for tag, value in part.tags.items():
            if tag.startswith("dvc."):
                path = Path(tag.removeprefix("dvc."))
                known[(path.parent if path.suffix and value.endswith(".dir") else path).as_posix()] = value
    return dict(sorted(known.items()))


def _what_failed(run: PastRun, stages: Sequence[PastStage]) -> Iterator[str]:
    if run.status == "FAILED":
        words = run.tags.get("longreward.error", "no error was noted")
        yield from ("**It failed:**", "", "```", words[:MOST_WORDS].replace("```", "'''"), "```", "")
    if run.status == "KILLED":
        stopped = [part.stage for part in stages if part.of == run.id and part.status == "KILLED"]
        yield f"**It was stopped**{f' in {stopped[-1]}' if stopped else ''}; a next run goes on from there."
        yield ""


def _stages(run: PastRun, stages: Sequence[PastStage]) -> Iterator[str]:
    rows = []
    for part in stages:
        how = part.status.lower() if part.of == run.id else "up to date, made by an earlier run"
        rows.append((_link(run, part.run, part.stage), _time(part.seconds), how))
    if rows:
        yield from ("", "### Stages", "", *markdown_table(("stage", "time", ""), rows))


def _against_sft(evaluation: str) -> Iterator[str]:
    yield from ("", "### Against its SFT model", "")
    try:
        table = history.read_artifact(evaluation, history.TABLE)
    except LongRewardError as error:
        yield f"The evaluation cannot be shown: {error}"
        return
    rows = [_row(row) for row in table["rows"] if row["measure"] in HEADLINE and " against " not in row["comparison"]]
    yield from (str(table["sentence"]), "")
    yield from markdown_table(("decoding", "measure", "SFT", "DPO", "difference", "interval", "p"), rows)


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    digits = 1 if row["measure"] in NEUTRAL_MEASURES else 3
    change = row["difference"]
    return (
        row["comparison"],
        row["measure"],
        f"{row['sft']['value']:.{digits}f}",
        f"{row['dpo']['value']:.{digits}f}",
        f"{change['value']:+.{digits}f}",
        f"{change['low']:+.{digits}f} … {change['high']:+.{digits}f}",
        corrected_p(row["measure"], change),
    )


def _against_champion(run: PastRun) -> Iterator[str]:
    """The champion is the one that its model met when it was evaluated, which it may have replaced."""
    assert run.evaluation is not None, "the caller has seen it"
    tags = history.run_tags(run.evaluation)
    before = tags.get(CHAMPION_BEFORE, "none")
    now = "became the champion" if tags.get("longreward.champion") == "true" else "did not become the champion"
    yield from ("", "### Against the champion", "")
    if before == "none":
        yield f"There was none yet; this model {now}."
        return
    champion = history.read_run(before)
    met = f"It met {_link(run, champion.id, champion.name)} and {now}."
    try:
        comparison = compare(champion, run, top=0)
    except LongRewardError as error:
        yield f"{met} The two cannot be compared: {error}"
        return
    yield f"{met} {comparison.shared.sentence}"
    yield from ("", *comparison.warnings) if comparison.warnings else ()
    yield from _compared(comparison)


def _compared(comparison: Comparison) -> Iterator[str]:
    changes = [one for one in comparison.changes if one.model == "dpo" and one.measure in HEADLINE]
    header = ("decoding", "measure", "champion", "this", "difference", "interval", "p", "")
    yield from ("", *markdown_table(header, map(change_cells, changes)))
    shown = difference_cells(comparison.params[:MOST_SETTINGS])
    more = len(comparison.params) - len(shown)
    yield from ("", "Settings that differ from the champion's:" if shown else "Its settings are the champion's.", "")
    if shown:
        yield from markdown_table(("setting", "champion", "this"), shown)
    if more > 0:
        yield from ("", f"and {more} more.")


def _link(run: PastRun, run_id: str, name: str) -> str:
    """To the page of a run as it is shown for training, with curves, rather than for agents."""
    return f"[{name}](#/experiments/{run.experiment}/runs/{run_id}?workflowType=machine_learning)"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
