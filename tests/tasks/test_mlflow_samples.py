"""Judgments as traces, written to a real MLflow store and read back."""

from collections.abc import Iterator

import mlflow
import pytest
from own_store import own_store

from longreward.records import Evidence, Extract, Extraction, Response, ScoredResponse, Statement, Verdict
from longreward.reward import ScoredExample
from longreward.tasks.mlflow_samples import EvenlySpacedSample, scoring_trace
from longreward.tasks.tracking import stage_run
from longreward.tasks.tracking.run import Span
from longreward.tasks.tracking.store import experiment_id

ANSWER = Response(id="7-0", example_id="7", query="Who founded Keld, and when?", text="Ann Lee founded Keld in 1907.")
WRONG = Statement(
    text="Keld was founded in 1907.",
    support=0.0,
    analysis="The document says 1905.",
    evidence=(Evidence(start=0, end=38, text="Keld was founded in 1905 by Ann Lee."),),
)
VERDICTS = {
    "helpfulness": Verdict(score=8.0, analysis="It answers both."),
    "logicality": Verdict(score=None, reason="no score in five answers"),
    "faithfulness": Verdict(score=5.0, statements=(WRONG, WRONG.model_copy(update={"text": "y" * 9000}))),
    "completeness": Verdict(score=10.0),
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
    with own_store(tmp_path_factory.mktemp("store")):
        yield


def test_a_judgment_is_a_trace_of_its_run_with_a_span_for_each_dimension_and_statement(store: None) -> None:
    settings = {"score": {"strategy": "full"}}
    with stage_run("score", params=settings, all_params=settings, tags={}) as run:
        run.log_traces([scoring_trace(SCORED)])
    [trace] = mlflow.search_traces(locations=[experiment_id()], return_type="list")
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.id
    whole, *parts = trace.data.spans
    assert (whole.inputs["response"], whole.outputs) == (ANSWER.text, {"reward": None})
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


def test_few_of_many_leave_a_trace() -> None:
    spaced = EvenlySpacedSample[Span](total=90, limit=3)
    assert len(list(spaced.collect([SCORED] * 90, scoring_trace))) == 90
    assert len(spaced.rows) == 3
