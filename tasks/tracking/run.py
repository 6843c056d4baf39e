"""A run in MLflow, and what can be put into it: curves, figures, settings, tags, files, tables, a note."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.tracking.store import client
from tasks.tracking.traces import Span, write_traces

FLUSH_EVERY_S = 2.0


@dataclass
class Run:
    """An MLflow run in progress."""

    id: str
    parent: str | None = None
    _waiting: list[tuple[str, float, int, int]] = field(default_factory=list)
    _flushed: float = 0.0
    _tables: list[dict[str, str]] = field(default_factory=list)

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

    def flush(self) -> None:
        """Sends the points that wait."""
        from mlflow.entities import Metric

        waiting, self._waiting, self._flushed = self._waiting, [], time.time()
        for start in range(0, len(waiting), 1000):  # MLflow's limit for a batch
            client().log_batch(self.id, metrics=[Metric(*point) for point in waiting[start : start + 1000]])

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        from mlflow.entities import RunTag

        client().log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as parameters "section.key"."""
        from mlflow.entities import Param

        flat = flat_settings(settings)
        for start in range(0, len(flat), 100):  # MLflow's limit for a batch
            client().log_batch(self.id, params=[Param(*setting) for setting in flat[start : start + 100]])

    def text(self, name: str, text: str) -> None:
        """Keeps a text with the run, as a file of that name: an SVG or a report shows in MLflow's pages."""
        client().log_text(self.id, text, name)

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
        write_traces(self.id, judgments)

    def note(self, markdown: str) -> None:
        """The text that stands at the top of the run's page."""
        self.tag({"mlflow.note.content": markdown})


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as MLflow's parameters: ("section.key", "value")."""
    flat = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat += flat_settings(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", str(value)))
    return flat
