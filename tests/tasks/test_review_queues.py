"""Human labels through MLflow's store. tests/flows/test_review_server.py uses a tracking server."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai.label_schemas import get_label_schema
from mlflow.genai.review_queues import get_review_queue, list_review_queue_items
from mlflow_store import mlflow_store

from longreward.human_labels.items import LabelSet, ReviewItem
from longreward.records import Evidence
from longreward.tasks.review_queues import (
    ELLIPSIS,
    ITEM_TAG,
    LONG_PREVIEW,
    REVIEWER_TAG,
    collect_labels,
    create_queues,
    response_preview,
    shorten,
    show_verdicts,
)
from longreward.tasks.tracking.store import client

DOCUMENT = "Keld was founded in 1905 by Ann Lee. " * 1000


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    previous = mlflow.get_tracking_uri()
    with mlflow_store(tmp_path):
        yield
    mlflow.set_tracking_uri(previous)


def make_items() -> list[ReviewItem]:
    common = {"document_id": "d", "context": DOCUMENT, "query": "Who founded Keld?", "judge": "secret-judge"}
    return [
        *(
            ReviewItem(
                id=f"support-{number}",
                kind="support",
                aspect="faithfulness",
                responses=(f"{name} founded it.",),
                statement=f"{name} founded Keld.",
                evidence=(Evidence(start=0, end=36, text=DOCUMENT[:36]),),
                stratum="judge: partial",
                verdict=0.5,
                **common,
            )
            for number, name in enumerate(("Ann Lee", "Bo Ray"), start=1)
        ),
        ReviewItem(
            id="preference-1",
            kind="preference",
            aspect="overall",
            responses=("Ann Lee.", "Bo Ray."),
            stratum="margin 3 and more",
            verdict=1.0,
            **common,
        ),
        ReviewItem(
            id="score-1",
            kind="score",
            aspect="helpfulness",
            responses=("Ann Lee.",),
            stratum="score 7 and more",
            verdict=9.25,
            **common,
        ),
    ]


def traces(experiment: str) -> "dict[tuple[str, str], mlflow.entities.Trace]":
    page = client().search_traces(locations=[experiment], max_results=100)
    return {(trace.info.tags[ITEM_TAG], trace.info.tags.get(REVIEWER_TAG, "")): trace for trace in page}


def answer(
    trace: "mlflow.entities.Trace", name: str, value: object, *, user: str = "default", comment: str = ""
) -> None:
    """Write what MLflow's review page writes."""
    mlflow.log_assessment(
        trace.info.trace_id,
        Feedback(
            name=name,
            value=value,  # type: ignore[arg-type]
            source=AssessmentSource(source_type="HUMAN", source_id=user),
            rationale=comment or None,
        ),
    )


def experiment_of(url: str) -> str:
    return url.partition("/experiments/")[2].partition("/")[0]


def test_queues_labels_and_repetition() -> None:
    items = make_items()
    labels = LabelSet({item.id: item for item in items}, ())
    links = create_queues(items[1:], [])
    assert [(link.name, link.items, link.new) for link in links] == [
        ("support", 1, 1),
        ("preference", 1, 1),
        ("score", 1, 1),
    ]
    assert links[0].url.startswith("/#/experiments/")
    experiment = experiment_of(links[0].url)
    # An interrupted or enlarged call adds what is missing, to the same queues.
    again = create_queues(items, [])
    assert [(link.url, link.new) for link in again] == [(links[0].url, 1), (links[1].url, 0), (links[2].url, 0)]
    queue = get_review_queue(name="support", experiment_id=experiment)
    assert len(list_review_queue_items(queue.queue_id)) == 2
    assert queue.schema_ids == [get_label_schema("support", experiment_id=experiment).schema_id]

    own = traces(experiment)
    assert collect_labels(labels, "anna").unlabelled == 4
    answer(own["support-1", ""], "support", "full")
    answer(own["support-1", ""], "support", "partial", comment="the year is missing")  # a correction
    answer(own["support-2", ""], "support", "none", user="ben@example.org")
    answer(own["preference-1", ""], "preference", "tie")
    answer(own["score-1", ""], "score", 11.5)
    answer(own["score-1", ""], "another question", "full")
    collected = collect_labels(labels, "anna")
    assert [
        (label.item, label.reviewer, label.value, label.comment)
        for label in labels.with_labels(collected.labels).labels
    ] == [
        ("preference-1", "anna", 0.0, None),
        ("support-1", "anna", 0.5, "the year is missing"),
        ("support-2", "ben@example.org", 0.0, None),
    ]
    assert collected.invalid == ("score-1, anna: value 11.5 is not a number from 0 to 10",)
    assert (collected.unlabelled, collected.unknown) == (0, 0)
    assert collect_labels(LabelSet({}, ()), "anna").unknown == 4


def test_verdicts_are_shown_after_the_label() -> None:
    items = make_items()
    labels = LabelSet({item.id: item for item in items}, ())
    experiment = experiment_of(create_queues(items, [])[0].url)
    assert show_verdicts(labels) == 0
    answer(traces(experiment)["support-1", ""], "support", "full")
    answer(traces(experiment)["score-1", ""], "score", 8.0)
    assert show_verdicts(labels) == 2
    assert show_verdicts(labels) == 0
    judged = {
        key[0]: (assessment.name, assessment.feedback.value, assessment.source.source_id)
        for key, trace in traces(experiment).items()
        for assessment in trace.info.assessments
        if assessment.source.source_type == "LLM_JUDGE"
    }
    assert judged == {
        "support-1": ("support", "partial", "secret-judge"),
        "score-1": ("score", 9.25, "secret-judge"),
    }
    collected = collect_labels(labels, "anna").labels
    assert {(label.item, label.value) for label in collected} == {("support-1", 1.0), ("score-1", 8.0)}


def test_reviewers_have_queues_of_their_own() -> None:
    items = make_items()[:1]
    links = create_queues(items, ["anna", "ben"])
    assert [link.name for link in links] == ["support, anna", "support, ben"]
    own = traces(experiment_of(links[0].url))
    answer(own["support-1", "anna"], "support", "full")
    answer(own["support-1", "ben"], "support", "none")
    collected = collect_labels(LabelSet({item.id: item for item in items}, ()), "nobody")
    assert {(label.reviewer, label.value) for label in collected.labels} == {("anna", 1.0), ("ben", 0.0)}
    # A third reviewer later does not touch the others.
    assert [link.new for link in create_queues(items, ["anna", "ben", "cy"])] == [0, 0, 1]


def test_traces_are_readable_and_blind() -> None:
    items = make_items()
    own = traces(experiment_of(create_queues(items, [])[0].url))
    for trace in own.values():
        for word in ("secret-judge", "partial", "margin", "9.25", "verdict", "stratum"):
            assert word not in trace.to_json()
        assert trace.data.spans[0].inputs["document"] == DOCUMENT
    support = own["support-1", ""].info
    assert support.request_preview == "Who founded Keld?"
    assert support.response_preview.startswith("#### Statement\n\nAnn Lee founded Keld\\.")
    assert "#### Evidence 1\n\nKeld was founded in 1905 by Ann Lee\\." in support.response_preview
    preference = own["preference-1", ""].info.response_preview
    assert preference.startswith("### Overall\n\n*")
    assert preference.index("Response A") < preference.index("Response B") < preference.index("Document")
    # A database without limits on texts takes more than MLflow's 1,000 characters.
    assert 9_000 < len(preference) <= LONG_PREVIEW
    assert preference.endswith("View full trace)")
    assert "Document" not in own["score-1", ""].info.response_preview  # the judge rates helpfulness without it


def test_previews_show_markup_as_text() -> None:
    item = make_items()[0]
    hostile = item.model_copy(
        update={"statement": "# <img src=x onerror=alert(1)> ![x](http://example.org/x.png) **b**"}
    )
    preview = response_preview(hostile)
    assert (
        "\\# \\<img src=x onerror=alert\\(1\\)\\> \\!\\[x\\]\\(http://example\\.org/x\\.png\\) \\*\\*b\\*\\*" in preview
    )
    assert shorten("ab\\*" + "x" * 100, len(ELLIPSIS) + 3) == "ab… (the rest: View full trace)"


def test_a_refused_preview_is_written_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    store = client()
    get_trace, refused = store.get_trace, []

    def refuse_long(trace_id: str, **kwargs: object) -> object:
        trace = get_trace(trace_id, **kwargs)
        if len(trace.info.response_preview) > 1000:
            refused.append(trace_id)
            raise mlflow.MlflowException("not there")
        return trace

    monkeypatch.setattr(store, "get_trace", refuse_long)
    create_queues(make_items()[2:3], [])
    assert len(refused) == 1
