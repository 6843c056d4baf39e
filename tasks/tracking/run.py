"""An MLflow run, and what can be logged to it: metrics, parameters, tags, files, tables, data sets and traces."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.records import Verdict
from longreward.tasks.tracking.outbox import outbox
from longreward.tasks.tracking.store import client, experiment_id, probe_store, store_uri, use_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities.span import Span as OpenSpan

UNKNOWN = "unknown"  # the id of a run that MLflow does not have
DVC_TAG = "dvc."  # prefix of the tags with DVC's hashes of a stage's inputs
NOTE_TAG = "mlflow.note.content"
FLUSH_INTERVAL_S = 2.0
MAX_PENDING = 500  # points, before they are sent
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
# In characters. MLflow 3.17 cuts longer tags and parameters, in every kind of store (mlflow.utils.validation).
MAX_NOTE, MAX_PARAM = 8000, 6000


class Run:
    """An MLflow run in progress. Logging to it never raises an error of the store: see `outbox`."""

    def __init__(self, id: str | None = None, parent: str | None = None) -> None:
        self._id = id
        self.parent = parent
        self._pending: list[tuple[str, float, int, int]] = []
        self._flushed = 0.0
        self._tables: list[dict[str, str]] = []

    @classmethod
    def begin(cls, name: str, *, parent: Run | str, tags: Mapping[str, str]) -> Run:
        """Create a run under another; if the store does not answer, it gets an id as soon as it does."""
        parent_run = parent if isinstance(parent, Run) else cls(parent)
        run = cls(parent=parent_run._id)
        started = _now_ms()

        def create() -> None:
            if parent_run._id:
                run._id = create_run(name, parent=parent_run._id, tags=tags, start_time=started)

        outbox.send(f"the run {name}", create)
        return run

    @property
    def id(self) -> str:
        """MLflow's id; "unknown" if the run could not be created (yet)."""
        return self._id or UNKNOWN

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve. Points are sent in batches: cheap enough for every training step."""
        now = time.time()
        self._pending += [(name, float(value), int(now * 1000), step) for name, value in metrics.items()]
        if now - self._flushed > FLUSH_INTERVAL_S or len(self._pending) > MAX_PENDING:
            self.flush()

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics of one value each, at once."""
        self.log_step(0, metrics)
        self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Send the pending points; `last` does so even if the store did not answer a moment ago."""
        from mlflow.entities import Metric

        if outbox.paused and not last:
            return
        pending, self._pending, self._flushed = self._pending, [], time.time()
        for batch in _batches(pending, METRICS_PER_BATCH):
            metrics = [Metric(*point) for point in batch]
            self.send("metrics", partial(_log_batch, metrics=metrics))
        outbox.flush()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        entities = [RunTag(name, str(value)) for name, value in tags.items()]
        self.send(f"the tags {', '.join(tags)}", lambda id: client().log_batch(id, tags=entities))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested settings as "section.key"; if one is too long for MLflow, also as `settings.json`."""
        from mlflow.entities import Param

        flat = flatten_params(params)
        if any(len(value) > MAX_PARAM for _, value in flat):
            self.log_json("settings.json", params)
        for batch in _batches(flat, PARAMS_PER_BATCH):
            entities = [Param(*param) for param in batch]
            self.send("parameters", partial(_log_batch, params=entities))

    def log_inputs(self, stage: str, hashes: Mapping[str, str]) -> None:
        """Log what a stage reads as data sets; `hashes` are DVC's, by path."""
        if inputs := dataset_inputs(stage, hashes):
            self.send("data sets", lambda id: client().log_inputs(id, inputs))

    def log_dataset(self, name: str, file: Path, context: str) -> None:
        """Log a jsonl file as a data set of this run; `context` is "training" or "evaluation".

        Its digest is the MD5 of the file, so that runs with the same data show the same digest in the UI.
        """
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        inputs = [_dataset_input(name, file, digest, context)]
        self.send(f"the data set {name}", lambda id: client().log_inputs(id, inputs))

    def log_text(self, name: str, text: str) -> None:
        """Log a text as the file `name`; the MLflow UI renders SVG and Markdown."""
        self.send(f"the file {name}", lambda id: client().log_text(id, text, name))

    def log_figure(self, name: str, figure: Figure) -> None:
        """Log a matplotlib figure as the file `name`; the suffix is its format."""
        self.send(f"the file {name}", lambda id: client().log_figure(id, figure, name))

    def log_json(self, name: str, value: Any) -> None:
        """Log plain data as the JSON file `name`."""
        self.log_text(name, json.dumps(value, ensure_ascii=False))

    def log_table(self, name: str, table: Mapping[str, Sequence[Any]]) -> None:
        """Log {"columns": […], "data": [[…], …]} as the file `name`, which the MLflow UI shows as a table."""
        self.log_json(name, table)
        self._tables.append({"path": name, "type": "table"})
        self.set_tags({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def log_traces(self, spans: Iterable[Span]) -> None:
        """Write each span, with its children and its verdicts, as a trace of this run."""
        roots = list(spans)
        self.send("traces", lambda id: _write_traces(id, roots))

    def log_report(self, name: str, markdown: str) -> None:
        """Log a report as the file `name`, and show as much of it as fits at the top of the run's page."""
        self.log_text(name, markdown)
        self.set_tags({NOTE_TAG: shorten_note(markdown, name)})

    def set_status(self, status: str) -> None:
        """Set RUNNING, or end the run as FINISHED, FAILED or KILLED at the present time."""
        now = _now_ms()  # not the time at which it is sent
        if status == "RUNNING":
            self.send("the status RUNNING", lambda id: client().update_run(id, status=status))
        else:
            self.send(f"the status {status}", lambda id: client().set_terminated(id, status, end_time=now))

    def send(self, label: str, call: Callable[[str], object]) -> None:
        """Queue a call with the run's id; none for a run that could not be created, which was logged then."""
        outbox.send(label, lambda: call(self._id) if self._id else None)


def _log_batch(run_id: str, **entities: list[Any]) -> None:
    client().log_batch(run_id, **entities)


def create_run(name: str, *, parent: str | None, tags: Mapping[str, str], start_time: int | None = None) -> str:
    """Create a run and return its id; raises MLflow's errors. `start_time` is in milliseconds."""
    parent_tag = {"mlflow.parentRunId": parent} if parent else {}
    run = client().create_run(experiment_id(), start_time=start_time, run_name=name, tags={**parent_tag, **tags})
    return str(run.info.run_id)


def flatten_params(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as MLflow's parameters, ("section.key", "value")."""
    flat = []
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat += flatten_params(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", str(value)))
    return flat


def shorten_note(markdown: str, file: str, *, limit: int = MAX_NOTE) -> str:
    """Cut a note that is too long for MLflow before a section, paragraph or line; refer to `file` for the rest."""
    if len(markdown) <= limit:
        return markdown
    fence = "\n```"
    notice = f"\n\n… The note is too long for MLflow: `{file}`, among the run's artifacts, has all of it."
    limit -= len(notice) + len(fence)
    # A boundary in the first half would leave out text that fits, so the next finer one is tried.
    boundaries = (markdown.rfind(boundary, 0, limit) for boundary in ("\n#", "\n\n", "\n"))
    note = markdown[: next((end for end in boundaries if end >= limit // 2), limit)].rstrip()
    return note + (fence if note.count("```") % 2 else "") + notice


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _now_ms() -> int:
    return int(time.time() * 1000)


# Data sets

CONTEXTS = {"sft": "training", "train": "training", "evaluate": "evaluation"}  # else the stage's own name
MAX_COUNTED_BYTES = 256 * 2**20  # counting the lines of larger data would delay a stage
MAX_LINE_BYTES = 2**20
COLUMN_TYPES = {str: "string", bool: "boolean", int: "long", float: "double", list: "array", dict: "object"}


def dataset_inputs(stage: str, hashes: Mapping[str, str]) -> list[Any]:
    """Return MLflow's data sets for what a stage reads: name, hash, size and columns.

    `hashes` maps paths to DVC's hashes. Models are tags, not data sets.
    """
    context = CONTEXTS.get(stage, stage)
    return [
        _dataset_input(name, Path(name), hash_, context)
        for name, hash_ in hashes.items()
        if Path(name).parts[0] != "models"
    ]


def _dataset_input(name: str, path: Path, digest: str, context: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    profile = {"bytes": sum(file.stat().st_size for file in files), "files": len(files)}
    columns: list[dict[str, Any]] = []
    for file in (file for file in files if file.suffix == ".jsonl"):
        # The columns and rows of a folder are named after its files.
        prefix = "" if file == path else f"{file.relative_to(path).as_posix()}: "
        columns += _columns(file, prefix)
        if profile["bytes"] <= MAX_COUNTED_BYTES:
            with file.open("rb") as content:
                blocks = iter(partial(content.read, 2**20), b"")
                profile[f"{prefix}rows"] = sum(block.count(b"\n") for block in blocks)
    dataset = Dataset(
        name=name,
        digest=digest[:36],  # MLflow's limit, and the length of a folder's hash in DVC
        source_type="local",
        source=json.dumps({"uri": path.as_posix()}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _columns(file: Path, prefix: str) -> Iterator[dict[str, Any]]:
    """Return the columns of the first record of a jsonl file."""
    with file.open("rb") as lines:
        first = lines.readline(MAX_LINE_BYTES)
    try:
        record = json.loads(first)
    except ValueError:  # the stage itself reports what is wrong with its input
        return
    for name, value in record.items() if isinstance(record, dict) else ():
        yield {"name": f"{prefix}{name}", "type": COLUMN_TYPES.get(type(value), "string"), "required": True}


# Traces


@dataclass(frozen=True)
class Span:
    """One step of a computation, with its parts, to be read as an MLflow trace."""

    name: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    children: tuple[Span, ...] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """Of a root span: by dimension, shown as assessments of the trace."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of a root span: tags of the trace."""


def _write_traces(run_id: str, spans: Iterable[Span]) -> None:
    """Write a trace for each span. They are written afterwards, so their times have no meaning."""
    os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")  # its queue is flushed at exit with a message
    import mlflow

    from longreward.integrations.mlflow_assessments import to_feedback

    use_store()
    for span in spans:
        probe_store(store_uri())  # MLflow's exporter hides errors, after long retries for each trace
        trace_id = _write_span(span, None, run_id)
        for name, verdict in span.verdicts.items():
            feedback = to_feedback(name, verdict, judge="")
            feedback.metadata = {"mlflow.assessment.sourceRunId": run_id}
            mlflow.log_assessment(trace_id, feedback)


def _write_span(span: Span, parent: OpenSpan | None, run_id: str) -> str:
    """Write a span with its children and return the id of its trace."""
    import mlflow

    kwargs: dict[str, Any] = {"parent_span": parent}
    if parent is None:
        metadata = {"mlflow.sourceRun": run_id}
        kwargs = {"experiment_id": experiment_id(), "metadata": metadata, "tags": dict(span.tags)}
    mlflow_span = mlflow.start_span_no_context(span.name, inputs=dict(span.inputs), **kwargs)
    for child in span.children:
        _write_span(child, mlflow_span, run_id)
    mlflow_span.end(outputs=dict(span.outputs))
    return str(mlflow_span.trace_id)
