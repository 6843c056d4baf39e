"""Judgments as MLflow traces: for reading, what was asked of which part and what came of it.

They are written when all is known, so that their times say nothing; MLflow takes some 40 ms for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longreward.tasks.tracking.probe import probe_store
from longreward.tasks.tracking.store import client, experiment_id
from longreward.tasks.tracking.uris import store_uri

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
