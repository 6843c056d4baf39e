"""Review queues of MLflow: items become traces that people label in MLflow's own UI.

    experiment "longreward-review"
    ├── label schemas   support, preference, score
    ├── queues          one for each kind of question, and each reviewer if some are named
    └── traces          one for each item of a queue; labels are their HUMAN assessments

It works with open-source tracking servers from MLflow 3.14 on. What MLflow 3.17 lacks there, and what happens here:

- A queue is a shared pool: its first answer completes an item. So each reviewer has a queue with traces of its own,
  which also hides the answers of the others.
- Without logins every answer is from the user "default". So the reviewer is a tag of the trace.
- The review page shows a trace's previews only, of 1,000 characters by default. SQLite takes longer ones, and the page
  renders up to 10,000 characters; other databases get 1,000, with the rest under "View full trace".

The traces hold no verdict of the judge, no margin and no stratum.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longreward.errors import ConfigError
from longreward.human_labels.items import (
    DEFINITIONS,
    KINDS,
    MAX_SCORE,
    SUPPORT_LEVELS,
    SUPPORT_QUESTION,
    WORDS,
    Kind,
    Label,
    LabelSet,
    ReviewItem,
    format_value,
    parse_value,
)
from longreward.tasks.tracking.store import EXPERIMENT, artifact_location, client, is_server, opening, store_uri
from longreward.utils.jsonl import RowError
from longreward.utils.redaction import redact

if TYPE_CHECKING:
    from mlflow.entities import Trace
    from mlflow.genai.review_queues import ReviewQueue

REVIEW_EXPERIMENT = f"{EXPERIMENT}-review"
ITEM_TAG, REVIEWER_TAG = "longreward.item", "longreward.reviewer"
NO_LOGIN = "default"  # MLflow's name for the user of a server without logins
LONG_PREVIEW, SHORT_PREVIEW = 9_500, 1_000
TRACES_PER_PAGE = 500
ITEMS_PER_CALL = 100
ELLIPSIS = "… (the rest: View full trace)"

INSTRUCTIONS: Mapping[Kind, str] = {
    "support": f"{SUPPORT_QUESTION} {SUPPORT_LEVELS}",
    "preference": "Which response is better in the aspect that the text names? Choose tie only if you cannot tell.",
    "score": f"How well does the response do in the aspect that the text names, from 0 (not at all) to {MAX_SCORE} "
    "(entirely)?",
}


@dataclass(frozen=True)
class QueueLink:
    """A queue with its address in the UI."""

    name: str
    url: str
    items: int
    new: int
    """Items that this call has added."""


@dataclass(frozen=True)
class Collected:
    """The labels in MLflow, and what could not be used."""

    labels: tuple[Label, ...]
    unlabelled: int
    """Traces of known items without a label."""
    unknown: int
    """Traces of items that are not in the set."""
    invalid: tuple[str, ...]
    """Answers that are no value of their question, one sentence each."""


def create_queues(items: Sequence[ReviewItem], reviewers: Sequence[str]) -> list[QueueLink]:
    """Add the items to the queue of their kind, for each reviewer, and return the queues with all of their items.

    Items that a queue has stay as they are, so that an interrupted call can be repeated. Raises TrackingUnavailable,
    and ConfigError if the server has no review queues.
    """
    with _review_errors():
        experiment = _experiment()
        present = {_key(trace): str(trace.info.trace_id) for trace in _traces(experiment)}
        links = []
        for kind in KINDS:
            own = [item for item in items if item.kind == kind]
            if not own:
                continue
            schema = _schema(kind, experiment)
            for reviewer in reviewers or ("",):
                queue = _queue(f"{kind}, {reviewer}" if reviewer else kind, schema, experiment)
                new = sum((item.id, reviewer) not in present for item in own)
                # The queue lists the newest item first. Adding what it has changes nothing, and an interrupted call may
                # have written traces without adding them.
                traces = [
                    present.get((item.id, reviewer)) or _write_trace(item, reviewer, experiment)
                    for item in reversed(own)
                ]
                _add_items(queue, traces)
                links.append(QueueLink(queue.name, queue_url(queue), len(own), new))
    return links


def collect_labels(labels: LabelSet, reviewer: str) -> Collected:
    """Return the labels in MLflow about items of the set.

    The reviewer is the user who was logged in, else the one whose queue it is, else `reviewer`. Of several answers of
    one reviewer the newest counts.
    """
    with _review_errors():
        traces = list(_traces(_experiment()))
    collected: list[Label] = []
    unlabelled, unknown, invalid = 0, 0, []
    for trace in traces:
        item = labels.items.get(trace.info.tags[ITEM_TAG])
        if item is None:
            unknown += 1
            continue
        answers = [answer for answer in trace.info.assessments if _is_label(answer, item.kind)]
        unlabelled += not answers
        for answer in sorted(answers, key=lambda answer: answer.last_update_time_ms or 0):
            user = answer.source.source_id
            name = trace.info.tags.get(REVIEWER_TAG) or reviewer if user in (NO_LOGIN, "") else user
            try:
                value = parse_value(item.kind, answer.feedback.value)
            except RowError as error:
                invalid.append(f"{item.id}, {name}: {error}")
                continue
            collected.append(
                Label(item=item.id, reviewer=name, value=value, comment=answer.rationale or None, source="mlflow")
            )
    return Collected(tuple(collected), unlabelled, unknown, tuple(invalid))


def show_verdicts(labels: LabelSet) -> int:
    """Add the judge's verdict to each trace that has a label, as an LLM_JUDGE assessment of the same name.

    Then MLflow shows judge and reviewer side by side, and its `align` finds both. Returns the number of new ones. A
    trace without a label gets none: it would no longer be blind.
    """
    import mlflow
    from mlflow.entities import AssessmentSource

    added = 0
    with _review_errors():
        for trace in list(_traces(_experiment())):
            item = labels.items.get(trace.info.tags[ITEM_TAG])
            if item is None or item.verdict is None:
                continue
            sources = {
                assessment.source.source_type for assessment in trace.info.assessments if assessment.name == item.kind
            }
            if "HUMAN" in sources and "LLM_JUDGE" not in sources:
                mlflow.log_feedback(
                    trace_id=trace.info.trace_id,
                    name=item.kind,
                    value=format_value(item.kind, item.verdict),
                    source=AssessmentSource(source_type="LLM_JUDGE", source_id=item.judge or "unknown"),
                )
                added += 1
    return added


def queue_url(queue: "ReviewQueue") -> str:
    """Return the address of a queue in the UI; without a server, the part behind the server's address."""
    path = f"/#/experiments/{queue.experiment_id}/review-queue?selectedQueueId={queue.queue_id}"
    return f"{redact(store_uri()).rstrip('/')}{path}" if is_server(store_uri()) else path


def request_preview(item: ReviewItem) -> str:
    """Return the question as Markdown, for the narrow box at the top of the review page."""
    return escape_markdown(item.query)


def response_preview(item: ReviewItem) -> str:
    """Return what is labelled as Markdown: the texts, then the evidence, or the document if the question needs it."""
    if item.kind == "support":
        sections = [("Statement", item.statement or "")]
        sections += [(f"Evidence {number}", chunk.text) for number, chunk in enumerate(item.evidence, 1)]
        sections.append(("The whole response", item.responses[0]))
    else:
        names = ("Response A", "Response B") if item.kind == "preference" else ("Response",)
        sections = list(zip(names, item.responses, strict=True))
        if item.shows_document:
            sections.append(("Document", item.context))
    # The list of a queue shows the first words, so no heading repeats the question, which stands next to the item.
    heading = [] if item.kind == "support" else [f"### {item.aspect.capitalize()}", f"*{DEFINITIONS[item.aspect]}*"]
    return "\n\n".join([*heading, *(f"#### {name}\n\n{escape_markdown(text)}" for name, text in sections)])


def escape_markdown(text: str) -> str:
    r"""Escape what Markdown would format, hide or load: a text is shown as the judge reads it.

    >>> escape_markdown("# 1 <b>")
    '\\# 1 \\<b\\>'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~&$])", r"\\\1", text)


def shorten(markdown: str, limit: int) -> str:
    """Cut a preview, not between a backslash and what it escapes."""
    if len(markdown) <= limit:
        return markdown
    return f"{markdown[: limit - len(ELLIPSIS)].rstrip(chr(92))}{ELLIPSIS}"


def _write_trace(item: ReviewItem, reviewer: str, experiment: str) -> str:
    """Write the trace of an item, and return its id."""
    import mlflow
    from mlflow.entities.trace_location import MlflowExperimentLocation
    from mlflow.exceptions import MlflowException

    texts: dict[str, Any] = {"query": item.query, "aspect": item.aspect}
    if item.kind == "preference":
        texts |= {"response A": item.responses[0], "response B": item.responses[1]}
    else:
        texts |= {"response": item.responses[0]}
    if item.kind == "support":
        texts |= {"statement": item.statement, "evidence": [chunk.text for chunk in item.evidence]}
    tags = {ITEM_TAG: item.id, **({REVIEWER_TAG: reviewer} if reviewer else {})}
    for limit in (LONG_PREVIEW, SHORT_PREVIEW):
        with mlflow.start_span(item.kind, trace_destination=MlflowExperimentLocation(experiment)) as span:
            span.set_inputs({**texts, "document": item.context})
            mlflow.update_current_trace(
                tags=tags,
                request_preview=shorten(request_preview(item), SHORT_PREVIEW),
                response_preview=shorten(response_preview(item), limit),
            )
        try:
            client().get_trace(span.trace_id, display=False)
        except MlflowException:
            # MLflow's exporter only logs its errors. PostgreSQL and MySQL refuse a long preview.
            if limit == SHORT_PREVIEW:
                raise
            continue
        return str(span.trace_id)
    raise AssertionError("the last try returns or raises")


def _experiment() -> str:
    """Return the id of the experiment for labels, which is created if needed."""
    import mlflow

    uri = store_uri()
    if uri.startswith("databricks"):
        raise ConfigError(
            "MLFLOW_TRACKING_URI names Databricks, whose review app has another API: write a page with "
            "`longreward review page` and read its labels with `longreward review import`"
        )
    os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    store = client()
    mlflow.set_tracking_uri(uri)
    experiment = store.get_experiment_by_name(REVIEW_EXPERIMENT)
    if experiment is None:
        location = artifact_location(REVIEW_EXPERIMENT)
        return str(store.create_experiment(REVIEW_EXPERIMENT, artifact_location=location))
    if experiment.lifecycle_stage == "deleted":
        raise ConfigError(f"MLflow's experiment {REVIEW_EXPERIMENT!r} is deleted: restore it, then repeat this command")
    return str(experiment.experiment_id)


def _schema(kind: Kind, experiment: str) -> str:
    from mlflow.genai.label_schemas import InputCategorical, InputNumeric, create_label_schema, list_label_schemas

    for schema in list_label_schemas(experiment):
        if schema.name == kind:
            return str(schema.schema_id)
    words = WORDS.get(kind)
    created = create_label_schema(
        kind,
        type="feedback",
        input=InputCategorical(options=list(words)) if words else InputNumeric(min_value=0, max_value=MAX_SCORE),
        instruction=INSTRUCTIONS[kind],
        enable_comment=True,
        experiment_id=experiment,
    )
    return str(created.schema_id)


def _queue(name: str, schema: str, experiment: str) -> "ReviewQueue":
    from mlflow.genai.review_queues import create_review_queue, list_review_queues

    token = None
    while True:
        page = list_review_queues(experiment_id=experiment, page_token=token)
        for queue in page:
            if queue.name == name:
                return queue
        if not (token := page.token):
            break
    return create_review_queue(name, queue_type="custom", schema_ids=[schema], experiment_id=experiment)


def _add_items(queue: "ReviewQueue", traces: Sequence[str]) -> None:
    from mlflow.genai.review_queues import add_items_to_review_queue

    for start in range(0, len(traces), ITEMS_PER_CALL):
        add_items_to_review_queue(queue.queue_id, item_ids=list(traces[start : start + ITEMS_PER_CALL]))


def _traces(experiment: str) -> "Iterator[Trace]":
    """Yield the traces of items, without their texts."""
    token = None
    while True:
        page = client().search_traces(
            locations=[experiment], max_results=TRACES_PER_PAGE, page_token=token, include_spans=False
        )
        yield from (trace for trace in page if ITEM_TAG in trace.info.tags)
        if not (token := page.token):
            return


def _key(trace: "Trace") -> tuple[str, str]:
    return trace.info.tags[ITEM_TAG], trace.info.tags.get(REVIEWER_TAG, "")


def _is_label(assessment: Any, kind: Kind) -> bool:
    return bool(
        assessment.name == kind
        and assessment.source.source_type == "HUMAN"
        and assessment.valid is not False
        and getattr(assessment, "feedback", None) is not None
    )


@contextmanager
def _review_errors() -> Iterator[None]:
    """Turn errors of MLflow into TrackingUnavailable."""
    try:
        import mlflow.genai.review_queues  # noqa: F401
    except ImportError:
        raise ConfigError("review queues need MLflow 3.14 or later: `pip install -U mlflow`") from None
    logging.getLogger("mlflow.tracing").setLevel(logging.CRITICAL)  # a refused preview is tried again, shorter
    with opening(store_uri()):
        yield
