"""Samples of a stage's records: tables, and scoring traces that are read back from a real MLflow store."""

import json
from collections.abc import Iterator

import mlflow
import pytest
from mlflow_store import mlflow_store

from longreward.records import Evidence, Extract, Extraction, Response, ScoredResponse, Statement, Verdict
from longreward.reward import ScoredExample
from longreward.tasks.mlflow_samples import EvenlySpacedSample, TableSample, scoring_trace
from longreward.tasks.tracking.history import read_artifact
from longreward.tasks.tracking.run import Span
from longreward.tasks.tracking.run_hierarchy import PARENT, parent_run, stage_run
from longreward.tasks.tracking.store import client, experiment_id

ANSWER = Response(id="7-0", example_id="7", query="Who founded Keld, and when?", text="Ann Lee founded Keld in 1907.")
WRONG = Statement(
    text="Keld was founded in 1907.",
    support=0.0,
    analysis="The document says 1905.",
    evidence=(Evidence(start=0, end=38, text="Keld was founded in 1905 by Ann Lee."),),
)
VERDICTS = {
    "helpfulness": Verdict(score=8.0, analysis="It answers both.", judge="gpt-test"),
    "logicality": Verdict(score=None, reason="no score in five answers"),
    "faithfulness": Verdict(score=5.0, statements=(WRONG, WRONG.model_copy(update={"text": "y" * 9000}))),
    "completeness": Verdict(score=None, bounds=(2.0, 9.0)),
}


def extract(first: int, text: str | None) -> Extract:
    return Extract(start=first, end=first + 50, first_percent=first, last_percent=first + 50, text=text)


SCORED = ScoredExample(
    Extraction(
        example_id="7",
        query=ANSWER.query,
        extracts=(extract(0, "founded in 1905"), extract(50, None)),
    ),
    (ScoredResponse(response=ANSWER, verdicts=VERDICTS), ScoredResponse(response=ANSWER, verdicts={})),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with mlflow_store(tmp_path_factory.mktemp("store")):
        yield


def test_scoring_trace_spans(store: None) -> None:
    settings = {"score": {"strategy": "full"}}
    with stage_run("score", params=settings, all_params=settings, tags={}) as run:
        run.log_traces([scoring_trace(SCORED)])
    [trace] = mlflow.search_traces(locations=[experiment_id()], return_type="list")
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.id
    assert trace.info.tags["response"] == "7-0"
    assessments = {assessment.name: assessment for assessment in trace.info.assessments}
    assert set(assessments) == {"helpfulness", "logicality", "faithfulness", "completeness"}
    assert {assessment.source.source_type for assessment in assessments.values()} == {"LLM_JUDGE"}
    assert assessments["helpfulness"].source.source_id == "gpt-test"
    assert assessments["helpfulness"].metadata["mlflow.assessment.sourceRunId"] == run.id
    assert (assessments["helpfulness"].feedback.value, assessments["helpfulness"].rationale) == (
        8.0,
        "It answers both.",
    )
    assert assessments["faithfulness"].rationale.startswith("- not supported: Keld was founded in 1907.\n")
    assert assessments["logicality"].feedback.value is None
    assert assessments["logicality"].error.error_message == "no score in five answers"
    assert "between 2 and 9: adaptive scoring stopped" in assessments["completeness"].error.error_message
    full, *parts = trace.data.spans
    assert (full.inputs["query"], full.outputs) == (ANSWER.query, {"response": ANSWER.text, "reward": None})
    names = ["helpfulness", "logicality", "faithfulness", "statement", "statement", "completeness"]
    assert [part.name for part in parts] == names
    by_name = {part.name: part for part in parts}
    assert by_name["helpfulness"].outputs == {"score": 8.0, "analysis": "It answers both."}
    assert by_name["logicality"].outputs == {"reason": "no score in five answers"}
    assert by_name["completeness"].inputs == {"extracts": ["founded in 1905"]}
    first = parts[3]
    assert first.parent_id == by_name["faithfulness"].span_id
    assert first.outputs == {"support": 0.0, "analysis": "The document says 1905."}
    assert first.inputs == {
        "statement": "Keld was founded in 1907.",
        "evidence": ["Keld was founded in 1905 by Ann Lee."],
    }


def test_trace_sample_limited() -> None:
    spaced = EvenlySpacedSample[Span](limit=3)
    assert len(list(spaced.collect([SCORED] * 90, scoring_trace))) == 90
    assert len(spaced.rows) == 3


@pytest.mark.parametrize(
    ("count", "rows"),
    [(3, [0, 1, 2]), (7, [0, 1, 3, 5]), (8, [0, 2, 4, 6]), (13, [0, 2, 6, 10]), (100, [0, 16, 48, 80]), (0, [])],
)
def test_sample_is_evenly_spaced(count: int, rows: list[int]) -> None:
    sample = TableSample(("number",), limit=4)
    assert list(sample.collect(range(count), lambda number: [number])) == list(range(count))
    assert sample.rows == [[number] for number in rows]
    assert sample.count == count


def test_table_sample_log(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = TableSample(("id", "query"), limit=1)
    list(sample.collect(["a", "b"], lambda name: [name, "why?"]))
    with parent_run("tables", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with stage_run("pair", params={}, all_params={}, tags={}) as run:
            sample.log(run, "pairs.json")
    tags = client().get_run(run.id).data.tags
    assert read_artifact(run.id, "pairs.json") == {"columns": ["id", "query"], "data": [["a", "why?"]]}
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "pairs.json", "type": "table"}]
    assert tags["mlflow.note.content"].startswith("`pairs.json` shows 1 of 2, evenly spaced")
