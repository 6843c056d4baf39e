"""A run for stages in tests without an MLflow store."""

from dataclasses import dataclass, field


@dataclass
class RecordedRun:
    """Keeps what a stage logs to its MLflow run."""

    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags |= tags

    def log_text(self, name: str, text: str) -> None:
        self.texts[name] = text
