"""The dimensions in `mlflow.genai.evaluate`, with real stores: SQLite, and a tracking server over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from mlflow.genai.scorers import scorer
from tracking_servers import mlflow_server

from longreward.builtin.offline_judge.judge import OfflineJudge
from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import DataError, JudgeRefused
from longreward.integrations.mlflow import IncompleteEvaluation, dimension_scorers, evaluate, require_complete
from longreward.records import DIMENSIONS

CONTEXT = "Keld was founded in 1905 by Ann Lee. The market opened in 1931. " + "The river is long. " * 40
QUERY = "Who founded Keld, and when?"


def make_rows(count: int) -> list[dict[str, str]]:
    """Return rows of which every other one is wrong about the year."""
    return [
        {"context": CONTEXT, "query": QUERY, "response": f"Ann Lee founded Keld in {1905 if n % 2 else 2000 + n}."}
        for n in range(count)
    ]


@contextmanager
def use_store(uri: str, experiment: str) -> Iterator[None]:
    """Make `uri` MLflow's store and `experiment` its experiment; restore the earlier store at the end."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of one store for all tests here: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/runs.db"


@pytest.fixture
def store(database: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Work in an experiment of this test's own."""
    with use_store(database, request.node.name):
        yield


def read_traces(run_id: str) -> list[Any]:
    return list(mlflow.search_traces(run_id=run_id, return_type="list", max_results=1000))


def check_evaluation(result: Any, count: int) -> None:
    """Check that the store has the scores of all rows."""
    traces = read_traces(result.run_id)
    assert len(traces) == len(result.result_df) == count
    for trace in traces:
        assessments = {assessment.name: assessment for assessment in trace.info.assessments}
        assert set(assessments) == set(DIMENSIONS)
        wrong = "1905" not in trace.data.spans[0].outputs
        assert assessments["faithfulness"].feedback.value == (0.0 if wrong else 10.0)
        assert assessments["faithfulness"].source.source_type == "LLM_JUDGE"
        assert assessments["faithfulness"].source.source_id == OfflineJudge().name
        assert ("not supported" if wrong else "fully supported") in assessments["faithfulness"].rationale
    assert result.metrics["faithfulness/mean"] == 10 * sum(n % 2 for n in range(count)) / count


def test_evaluate_on_sqlite(store: None) -> None:
    check_evaluation(evaluate(make_rows(6)), 6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_evaluate_200_rows_on_sqlite_loses_none(store: None) -> None:
    check_evaluation(evaluate(make_rows(200)), 200)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_evaluate_200_rows_over_http_loses_none(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "server") as (uri, _), use_store(uri, "evaluations"):
        check_evaluation(evaluate(make_rows(200)), 200)


def test_lost_traces_are_an_error(store: None) -> None:
    scorers = dimension_scorers()
    rows = [{"inputs": {"context": r["context"], "query": r["query"]}, "outputs": r["response"]} for r in make_rows(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_GENAI_EVAL_MAX_WORKERS", "1")
        result = mlflow.genai.evaluate(data=rows, scorers=scorers)
    require_complete(result, rows=3, scorers=scorers)
    client, traces = mlflow.MlflowClient(), read_traces(result.run_id)
    mlflow.delete_assessment(
        trace_id=traces[0].info.trace_id, assessment_id=traces[0].info.assessments[0].assessment_id
    )
    with pytest.raises(IncompleteEvaluation, match="1 of 3 rows of the evaluation"):
        require_complete(result, rows=3, scorers=scorers)
    client.delete_traces(traces[1].info.experiment_id, trace_ids=[traces[1].info.trace_id])
    with pytest.raises(IncompleteEvaluation, match=r"2 of 3 rows .* fewer workers"):
        require_complete(result, rows=3, scorers=scorers)


def test_evaluate_raises_when_the_store_loses_assessments(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    log, calls = mlflow.log_assessment, []

    def lose_third(**kwargs: Any) -> Any:
        calls.append(kwargs)
        if len(calls) == 3:
            raise TimeoutError("QueuePool limit of size 5 overflow 10 reached")
        return log(**kwargs)

    monkeypatch.setattr(mlflow, "log_assessment", lose_third)
    with pytest.raises(IncompleteEvaluation, match="1 of 2 rows"):
        evaluate(make_rows(2))


class UnreadableJudge:
    """The offline judge, whose replies on logicality are unreadable for the second row."""

    name = "unreadable"

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        if request.template == "logicality" and "1905" in request.slots["answer"]:
            return ChatReply("I cannot say.")
        if request.template == "helpfulness" and "refuse" in request.slots["question"]:
            raise JudgeRefused("the key is not valid")
        return await OfflineJudge().complete(request, temperature=temperature)

    async def close(self) -> None:
        pass


def test_row_without_a_score_has_its_reason(store: None) -> None:
    result = evaluate(pandas.DataFrame(make_rows(2)), judge=UnreadableJudge())
    by_response = {trace.data.spans[0].outputs: trace.info.assessments for trace in read_traces(result.run_id)}
    unscored = {a.name: a for a in by_response["Ann Lee founded Keld in 1905."]}["logicality"]
    assert unscored.feedback.value is None
    assert unscored.error.error_code == "UNSCORED"
    assert "I cannot say." in unscored.error.error_message
    assert result.metrics["logicality/mean"] == 10.0  # of the other row


def test_error_of_the_judge_leaves_no_run(store: None) -> None:
    rows = [*make_rows(1), {"context": CONTEXT, "query": "refuse", "response": "yes"}]
    with pytest.raises(JudgeRefused):
        evaluate(rows, judge=UnreadableJudge())
    assert mlflow.search_runs(output_format="list") == []


def test_predicted_responses_and_a_scorer_of_the_user(store: None) -> None:
    @scorer
    def short(outputs: str) -> bool:
        return len(outputs) < 40

    rows = [{"context": CONTEXT, "query": QUERY}]
    result = evaluate(rows, predict_fn=lambda context, query: "Ann Lee founded Keld in 1905.", scorers=[short])
    assert result.metrics == {**{f"{name}/mean": 10.0 for name in DIMENSIONS}, "short/mean": 1.0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"context": "a", "query": "b"}, "row 1 lacks the column 'response'; it has 'context', 'query'"),
        (
            {"inputs": {"query": "b"}, "outputs": "c"},
            "the text `context` in the inputs, and one lacks it; .*'query'",
        ),
        (
            {"inputs": {"context": "a", "query": "b"}, "outputs": {"answer": "c"}},
            r"needs the text `response` in the outputs \(text, or a dictionary with `response`\), and one lacks it",
        ),
    ],
)
def test_missing_column(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate([row])
