"""The files in which a stage leaves its metrics, and the headline metrics: the few figures that a person compares.

    metrics/<stage>.json   the headline metrics, for `dvc metrics` and `dvc exp show`
    reports/<stage>.json   all metrics, with the ids of the stage's run in MLflow and of its parent

A headline metric has one name in DVC and on a pipeline's run in MLflow: `<stage>/<metric>`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longreward.errors import DataError
from longreward.utils.jsonl import open_atomic

# Regular expressions for whole names, in the order in which the metrics are listed.
HEADLINE_METRICS: Mapping[str, tuple[str, ...]] = {
    "synthesize": ("questions", "dropped"),
    "prepare": ("sft/examples", "preference/examples", "heldout/examples", "pairs"),
    "sft": ("loss",),
    "sample": ("responses", "mean_tokens"),
    "score": ("reward", "helpfulness", "logicality", "faithfulness", "completeness", "incomplete", "calls", "money"),
    "pair": ("pairs", "margin_mean"),
    "train": ("loss", "rewards/accuracies", "rewards/margins"),
    "evaluate": (r"dpo/[a-z]+/{decoding}", r"difference/[a-z]+/{decoding}", "champion"),
    "benchmark": (r"[a-z_]+/dpo", r"[a-z_]+/difference"),
}
"""By stage. `{decoding}` is `greedy` if that was evaluated, otherwise `t1`."""
SHOWN_FIGURES = 4  # in a log line
DIGITS = 6  # significant ones; reports/ has all digits


def headline_metrics(stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the headline metrics of a stage by their full name, such as `score/reward`, rounded.

    Args:
        stage: the name of the stage.
        metrics: all metrics of the stage, by their names within the stage, such as `reward`.
    """
    decoding = "greedy" if any(name.endswith("/greedy") for name in metrics) else "t1"
    names: dict[str, None] = {}
    for pattern in HEADLINE_METRICS.get(stage, ()):
        expression = re.compile(pattern.replace("{decoding}", decoding))
        names |= dict.fromkeys(name for name in metrics if expression.fullmatch(name))
    return {f"{stage}/{name}": _round(metrics[name]) for name in names}


def _round(value: float) -> float:
    """Return the value with DIGITS significant digits; a count as an integer."""
    return int(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class StageReport:
    """All metrics of a stage, and the MLflow runs that have them."""

    stage: str
    mlflow_run: str
    mlflow_parent: str | None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def headline(self) -> dict[str, float]:
        """The headline metrics by their full name."""
        return headline_metrics(self.stage, self.metrics)

    def write(self) -> str:
        """Write reports/<stage>.json and metrics/<stage>.json, and return the MD5 of the first.

        The ids make the report differ from that of every other run, and they are not in metrics/, where DVC would
        show them as metrics.
        """
        runs = {"mlflow_run": self.mlflow_run, "mlflow_parent": self.mlflow_parent}
        text = json.dumps({**runs, "metrics": dict(self.metrics)}, indent=1) + "\n"
        headline = json.dumps(self.headline, indent=1) + "\n"
        for path, content in ((report_file(self.stage), text), (Path("metrics") / f"{self.stage}.json", headline)):
            with open_atomic(path) as file:
                file.write(content)
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def format_headline(report: StageReport | None) -> str:
    """Return the first headline metrics of a stage for its log line, such as "reward 7.25, calls 14,894"."""
    if report is None:
        return ""
    figures = list(report.headline.items())[:SHOWN_FIGURES]
    return ", ".join(f"{name.removeprefix(f'{report.stage}/')} {value:,.4g}" for name, value in figures)


def report_file(stage: str) -> Path:
    """Return the path of a stage's report."""
    return Path("reports") / f"{stage}.json"


def read_report(stage: str) -> StageReport | None:
    """Return the report of a stage that has run; None if there is none. Raises DataError if it cannot be read."""
    file = report_file(stage)
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return StageReport(stage, values["mlflow_run"], values["mlflow_parent"], values["metrics"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not a stage's report ({error}); run the stage again with --force") from error
