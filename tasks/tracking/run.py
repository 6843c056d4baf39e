"""Judgments as MLflow traces: for reading, what was asked of which part and what came of it.

They are written when all is known, so that their times say nothing; MLflow takes some 40 ms for each.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.tasks.tracking.outbox import outbox
from longreward.tasks.tracking.store import client, experiment_id, probe_store, store_uri

if TYPE_CHECKING:
    from mlflow.entities.span import Span as OpenSpan


@dataclass(frozen=True)
class Span:
    """One step of a judgment, with its parts."""

    name: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    parts: tuple[Span, ...] = ()


def write_traces(run_id: str, judgments: Iterable[Span]) -> None:
    """A trace each, under the experiment's traces and on the page of the run."""
    os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")  # else a queue, flushed at exit with a message
    import mlflow

    client()
    mlflow.set_tracking_uri(store_uri())
    for whole in judgments:
        probe_store(store_uri())  # MLflow's exporter hides errors, after retries that take long for each trace
        _write(whole, None, run_id)


def _write(span: Span, above: OpenSpan | None, run_id: str) -> None:
    import mlflow

    place: dict[str, Any] = {"parent_span": above}
    if above is None:
        place = {"experiment_id": experiment_id(), "metadata": {"mlflow.sourceRun": run_id}}
    opened = mlflow.start_span_no_context(span.name, inputs=dict(span.inputs), **place)
    for part in span.parts:
        _write(part, opened, run_id)
    opened.end(outputs=dict(span.outputs))


# What a stage reads, as MLflow's data sets: name, hash, size and columns, so that runs on the same data are found.


CONTEXTS = {"sft": "training", "train": "training", "evaluate": "evaluation"}  # else the stage's own name
COUNTED_BYTES = 256 * 2**20  # counting the lines of more would hold a stage up
LONGEST_LINE = 2**20


def dataset_inputs(stage: str, hashes: Mapping[str, str]) -> list[Any]:
    """MLflow's entities for what a stage reads.

    `hashes`: path -> DVC's hash (of its folder, where DVC knows that as a whole). Models are tags, no data sets.
    """
    from mlflow.entities import DatasetInput, InputTag

    context = InputTag("mlflow.data.context", CONTEXTS.get(stage, stage))
    data = {Path(path): hash_ for path, hash_ in hashes.items() if Path(path).parts[0] != "models"}
    return [DatasetInput(_dataset(path, hash_), [context]) for path, hash_ in data.items()]


def _dataset(path: Path, hash_: str) -> Any:
    from mlflow.entities import Dataset

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    columns = list(_columns(path, files))
    return Dataset(
        name=path.as_posix(),
        digest=hash_[:36],  # MLflow's limit, and the length of a folder's hash in DVC
        source_type="local",
        source=json.dumps({"uri": path.as_posix()}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(_profile(path, files)),
    )


def _profile(path: Path, files: Iterable[Path]) -> dict[str, int]:
    """Bytes, files, and the rows of each jsonl file; no rows where there are too many bytes to count them quickly."""
    sizes = {file: file.stat().st_size for file in files}
    profile = {"bytes": sum(sizes.values()), "files": len(sizes)}
    if profile["bytes"] <= COUNTED_BYTES:
        profile |= {f"{_place(file, path)}rows": _rows(file) for file in sizes if file.suffix == ".jsonl"}
    return profile


def _columns(path: Path, files: Iterable[Path]) -> Iterable[dict[str, Any]]:
    """From the first line of each jsonl file."""
    kinds = {str: "string", bool: "boolean", int: "long", float: "double", list: "array", dict: "object"}
    for file in files:
        if file.suffix == ".jsonl":
            with file.open("rb") as lines:
                first = lines.readline(LONGEST_LINE)
            try:
                row = json.loads(first)
            except ValueError:  # the stage itself says what is wrong with its input
                continue
            for name, value in row.items() if isinstance(row, dict) else ():
                kind = kinds.get(type(value), "string")
                yield {"name": f"{_place(file, path)}{name}", "type": kind, "required": True}


def _place(file: Path, path: Path) -> str:
    return "" if file == path else f"{file.relative_to(path).as_posix()}: "


def _rows(file: Path) -> int:
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(2**20), b""))


# A run in MLflow, and what can be put into it: curves, figures, settings, tags, files, tables, a note.


FLUSH_EVERY_S = 2.0
UNKNOWN = "unknown"  # the id of a run that MLflow does not have
NOTE_TAG = "mlflow.note.content"
# Characters. MLflow 3.17 cuts longer tags and parameters, in every kind of store (mlflow.utils.validation).
MAX_NOTE = 8000
MAX_SETTING = 6000


class Run:
    """An MLflow run in progress. What is put into it never fails: see `outbox`."""

    def __init__(self, id: str | None = None, parent: str | None = None) -> None:
        self._id = id
        self.parent = parent
        self._waiting: list[tuple[str, float, int, int]] = []
        self._flushed = 0.0
        self._tables: list[dict[str, str]] = []

    @classmethod
    def begin(cls, name: str, *, parent: Run | str, tags: Mapping[str, str]) -> Run:
        """A new run under another; where the store does not answer, one that has an id as soon as it does."""
        above = parent if isinstance(parent, Run) else cls(parent)
        run = cls(parent=above._id)
        started = _now_ms()

        def create() -> None:
            if above._id:
                run._id = create_run(name, parent=above._id, tags=tags, start_time=started)

        outbox.send(f"the run {name}", create)
        return run

    @property
    def id(self) -> str:
        """MLflow's id; "unknown" where the run could not be created (yet)."""
        return self._id or UNKNOWN

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """A point on each curve; cheap enough for every training step, as points go to the store in batches."""
        now = time.time()
        self._waiting += [(name, float(value), int(now * 1000), step) for name, value in figures.items()]
        if now - self._flushed > FLUSH_EVERY_S or len(self._waiting) > 500:
            self.flush()

    def figures(self, figures: Mapping[str, float]) -> None:
        """Final figures, one value each."""
        self.log(0, figures)
        self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Sends the points that wait; `last` also where the store did not answer a moment ago."""
        from mlflow.entities import Metric

        if outbox.paused and not last:
            return
        waiting, self._waiting, self._flushed = self._waiting, [], time.time()
        for start in range(0, len(waiting), 1000):  # MLflow's limit for a batch
            metrics = [Metric(*point) for point in waiting[start : start + 1000]]
            self._send("figures", partial(_log_batch, metrics=metrics))
        outbox.flush()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        from mlflow.entities import RunTag

        known = [RunTag(name, str(value)) for name, value in tags.items()]
        self._send(f"the tags {', '.join(tags)}", partial(_log_batch, tags=known))

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as parameters "section.key"; with one that is too long for MLflow, all as a file too."""
        from mlflow.entities import Param

        flat = [Param(*setting) for setting in flat_settings(settings)]
        if any(len(param.value) > MAX_SETTING for param in flat):
            self.json("settings.json", settings)
        for start in range(0, len(flat), 100):  # MLflow's limit for a batch
            params = flat[start : start + 100]
            self._send("settings", partial(_log_batch, params=params))

    def inputs(self, stage: str, hashes: Mapping[str, str]) -> None:
        """Logs what a stage reads as data sets; `hashes` are DVC's, by path."""
        data = dataset_inputs(stage, hashes)
        if data:
            self._send("data sets", lambda id: client().log_inputs(id, data))

    def text(self, name: str, text: str) -> None:
        """Keeps a text with the run, as a file of that name: an SVG or a report shows in MLflow's pages."""
        self._send(f"the file {name}", lambda id: client().log_text(id, text, name))

    def json(self, name: str, value: Any) -> None:
        """Keeps plain data with the run, as a JSON file of that name."""
        self.text(name, json.dumps(value, ensure_ascii=False))

    def table(self, name: str, table: Mapping[str, Sequence[Any]]) -> None:
        """Keeps {"columns": […], "data": [[…], …]} as `name`, which MLflow's pages show as a table."""
        self.json(name, table)
        self._tables.append({"path": name, "type": "table"})
        self.tag({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def traces(self, judgments: Iterable[Span]) -> None:
        """Writes each as a trace of this run."""
        spans = list(judgments)
        self._send("traces", lambda id: write_traces(id, spans))

    def note(self, markdown: str) -> None:
        """The text at the top of the run's page; one that is too long for MLflow is kept whole as `note.md`."""
        if len(markdown) > MAX_NOTE:
            self.text("note.md", markdown)
        self.tag({NOTE_TAG: shorten_note(markdown, "note.md")})

    def report(self, name: str, markdown: str) -> None:
        """Keeps a report as the file `name`, and shows it at the top of the run's page, as far as it fits there."""
        self.text(name, markdown)
        self.tag({NOTE_TAG: shorten_note(markdown, name)})

    def status(self, status: str) -> None:
        """Sets the status: RUNNING again, or one that ends the run (FINISHED, FAILED, KILLED), with the time."""
        at = _now_ms()  # not when it is sent
        self._send(f"the status {status}", lambda id: _set_status(id, status, at))

    def _send(self, what: str, call: Callable[[str], object]) -> None:
        """Nothing of a run that could not be created: that was said when it failed."""
        outbox.send(what, lambda: call(self._id) if self._id else None)


def shorten_note(markdown: str, file: str) -> str:
    """Cut a note that is too long for MLflow at the border of a section, else of a paragraph or line, and say which
    `file` of the run has all of it."""
    if len(markdown) <= MAX_NOTE:
        return markdown
    fence = "\n```"
    rest = f"\n\n… The note is too long for MLflow: `{file}`, among the run's artifacts, has all of it."
    room = MAX_NOTE - len(rest) - len(fence)
    # A border in the first half would leave out much that fits: then a finer one.
    borders = (markdown.rfind(border, 0, room) for border in ("\n#", "\n\n", "\n"))
    shown = markdown[: next((at for at in borders if at >= room // 2), room)].rstrip()
    return shown + (fence if shown.count("```") % 2 else "") + rest


def create_run(name: str, *, parent: str | None, tags: Mapping[str, str], start_time: int | None = None) -> str:
    """A new run's id. Raises what MLflow raises."""
    family = {"mlflow.parentRunId": parent} if parent else {}
    created = client().create_run(experiment_id(), start_time=start_time, run_name=name, tags={**family, **tags})
    return str(created.info.run_id)


def _log_batch(run_id: str, **what: list[Any]) -> None:
    client().log_batch(run_id, **what)


def _set_status(run_id: str, status: str, at: int) -> None:
    if status == "RUNNING":
        client().update_run(run_id, status=status)
    else:
        client().set_terminated(run_id, status, end_time=at)


def _now_ms() -> int:
    return int(time.time() * 1000)


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as MLflow's parameters: ("section.key", "value")."""
    flat = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat += flat_settings(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", str(value)))
    return flat
