"""The four dimensions as scorers for `mlflow.genai.evaluate`, and an `evaluate` that loses no row.

    from longreward.integrations.mlflow import evaluate

    rows = [{"context": document, "query": "Who founded Keld?", "response": "Ann Lee founded Keld in 1907."}]
    result = evaluate(rows, judge=JudgeConfig(kind="openai", model="gpt-4.1-mini", base_url="https://api.openai.com/v1"))
    result.metrics["faithfulness/mean"]

Each score is an assessment of the row's trace: its name is the dimension, its source type LLM_JUDGE and its source id
the name of the judge.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Feedback
from mlflow.genai.scorers import Scorer, scorer

from longreward.errors import DataError, StateError
from longreward.integrations.background_scorer import BackgroundScorer, Row
from longreward.integrations.mlflow_assessments import to_feedback
from longreward.judge import ChatModel, JudgeConfig
from longreward.records import DIMENSIONS, Dimension
from longreward.reward import ScoreConfig

COLUMNS = ("context", "query", "response")
# MLflow 3.17 opens SQLite with a pool of 15 connections for 20 threads: 10 workers that predict and 10 that score. With
# that default, 132 of 200 traces were lost to timeouts of the pool, with warnings alone. 1 and 4 workers lost none, and
# took no longer per row.
DEFAULT_WORKERS = 2


class IncompleteEvaluation(StateError):
    """MLflow's store lacks traces or assessments of rows that were evaluated."""


def evaluate(
    data: Any,
    *,
    judge: JudgeConfig | ChatModel | None = None,
    config: ScoreConfig | None = None,
    ledger: Path | None = None,
    predict_fn: Callable[..., Any] | None = None,
    scorers: Sequence[Scorer] = (),
    workers: int = DEFAULT_WORKERS,
) -> Any:
    """Score responses in the four dimensions with `mlflow.genai.evaluate`, and check that MLflow has every row.

    The rows are scored before MLflow sees them, with the concurrency of the judge, so that an error of the judge leaves
    no half-written evaluation. With `predict_fn` there are no responses yet: each is scored once it is predicted.

    Args:
        data: a list of dictionaries or a DataFrame with the columns `context` (the document), `query` and `response`;
            or any data of `mlflow.genai.evaluate` whose `inputs` have `context` and `query`.
        judge, config, ledger: see BackgroundScorer.
        predict_fn: makes the response of a row from its context and query; see `mlflow.genai.evaluate`.
        scorers: further scorers of MLflow.
        workers: MLflow's workers, which write traces. More than 4 may lose traces in a SQLite store.

    Returns:
        MLflow's EvaluationResult, with the metrics `<dimension>/mean`. A row without a score has an assessment with the
        error code UNSCORED, and is not in the mean.

    Raises:
        DataError: a row lacks a column.
        JudgeError, BudgetExceeded: the judge gave no reply; MLflow has no run then.
        IncompleteEvaluation: MLflow's store lacks rows.
    """
    rows = to_evaluation_rows(data, predicted=predict_fn is not None)
    with BackgroundScorer(judge, config, ledger) as background:
        if predict_fn is None and isinstance(rows, list) and all("outputs" in row for row in rows):
            background.score_rows([to_row(row["inputs"], row["outputs"]) for row in rows])
        with _mlflow_settings(workers):
            all_scorers = [*_scorers(background), *scorers]
            result = mlflow.genai.evaluate(data=rows, scorers=all_scorers, predict_fn=predict_fn)
    require_complete(result, rows=len(rows) if hasattr(rows, "__len__") else len(rows.to_df()), scorers=all_scorers)
    return result


def dimension_scorers(
    judge: JudgeConfig | ChatModel | None = None, config: ScoreConfig | None = None, ledger: Path | None = None
) -> list[Scorer]:
    """Return a scorer for each dimension, for use in `mlflow.genai.evaluate` beside others; arguments as `evaluate`.

    A row needs `context` and `query` in its inputs, and its response as outputs. The four share one judge, which stays
    open until the process ends. MLflow itself decides how many rows are in flight, and reports no lost traces: call
    `require_complete` with its result.
    """
    return _scorers(BackgroundScorer(judge, config, ledger))


def _scorers(background: BackgroundScorer) -> list[Scorer]:
    return [_dimension_scorer(dimension, background) for dimension in DIMENSIONS]


def _dimension_scorer(dimension: Dimension, background: BackgroundScorer) -> Scorer:
    description = f"The {dimension} of a response to a query about a document, 0 to 10"

    # No timeout: the judge has its own timeouts and retries, which may take longer than the 300 seconds of MLflow.
    @scorer(name=dimension, description=description, timeout=0)  # type: ignore[untyped-decorator]
    def score(inputs: dict[str, Any], outputs: Any) -> Feedback:
        scored = background.submit(to_row(inputs, outputs)).result()
        return to_feedback(dimension, scored.verdicts[dimension], background.judge_name)

    return score


def to_row(inputs: Any, outputs: Any) -> Row:
    """Return the row of an evaluation; raises DataError if it lacks a column or one is no text."""
    values = dict(inputs) if isinstance(inputs, Mapping) else {}
    values["response"] = outputs.get("response") if isinstance(outputs, Mapping) else outputs
    for name in COLUMNS:
        if not isinstance(values.get(name), str):
            value = "lacks it" if values.get(name) is None else f"has {type(values[name]).__name__} there"
            where = "the outputs (text, or a dictionary with `response`)" if name == "response" else "the inputs"
            raise DataError(
                f"a row needs the text `{name}` in {where}, and one {value}; its inputs have "
                f"{', '.join(map(repr, values.keys() - {'response'})) or 'nothing'}"
            )
    return Row(values["context"], values["query"], values["response"])


def to_evaluation_rows(data: Any, *, predicted: bool = False) -> Any:
    """Return rows with the columns `context`, `query` and `response` as `inputs` and `outputs`; other data unchanged.

    With `predicted`, `response` is made later and not among the columns.
    """
    columns = COLUMNS[:-1] if predicted else COLUMNS
    records = data.to_dict(orient="records") if hasattr(data, "iterrows") else data
    if not isinstance(records, list) or not records or not all(isinstance(record, Mapping) for record in records):
        return data
    if "inputs" in records[0] or "trace" in records[0]:
        return records if all({"inputs", "outputs"} <= record.keys() for record in records) else data
    rows = []
    for number, record in enumerate(records, start=1):
        if missing := [name for name in columns if name not in record]:
            raise DataError(f"row {number} lacks the column {missing[0]!r}; it has {', '.join(map(repr, record))}")
        extra = {name: record[name] for name in ("expectations", "tags") if name in record}
        outputs = {} if predicted else {"outputs": record["response"]}
        rows.append({"inputs": {"context": record["context"], "query": record["query"]}, **outputs, **extra})
    return rows


def require_complete(result: Any, *, rows: int, scorers: Sequence[Scorer]) -> None:
    """Raise IncompleteEvaluation unless MLflow's store has a trace with an assessment of each scorer for every row.

    Args:
        result: what `mlflow.genai.evaluate` returned. It warns of lost traces, but neither raises nor counts them.
        rows: the number of rows that were evaluated.
        scorers: the scorers that give exactly one assessment of their name.
    """
    names = {scorer.name for scorer in scorers}
    evaluated = set(result.result_df["trace_id"])  # the run may have further traces, of an earlier evaluation
    complete = 0
    for trace in _run_traces(result.run_id):
        if trace.info.trace_id in evaluated:
            complete += names <= {assessment.name for assessment in trace.info.assessments}
    if complete < rows:
        raise IncompleteEvaluation(
            f"{rows - complete} of {rows} rows of the evaluation {result.run_id} are not in MLflow's store with all of "
            f"{', '.join(sorted(names))}, and may be missing from its means. Evaluate again with fewer workers "
            "(`workers`, or MLFLOW_GENAI_EVAL_MAX_WORKERS=1 for mlflow.genai.evaluate), or use a PostgreSQL store"
        )


def _run_traces(run_id: str) -> Iterator[Any]:
    client = mlflow.MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment], run_id=run_id, include_spans=False, max_results=500, page_token=token
        )
        yield from page
        if not (token := page.token):
            return


@contextmanager
def _mlflow_settings(workers: int) -> Iterator[None]:
    """Set MLflow's number of workers, and turn off its limit on scorers: the judge has its own."""
    values = {"MLFLOW_GENAI_EVAL_MAX_WORKERS": str(workers), "MLFLOW_GENAI_EVAL_SCORER_RATE_LIMIT": "0"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
