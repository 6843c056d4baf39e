"""How a response got its reward, as a trace to read in MLflow: each dimension, and each statement with its evidence."""

from longreward.evaluation.example_metrics import cut
from longreward.records import DIMENSIONS, Dimension, ScoredResponse, Statement, Verdict
from longreward.reward import ScoredExample
from longreward.tasks.tracking.traces import Span

TRACED = 20
"""Responses, evenly spaced, of a stage."""


def scoring_trace(example: ScoredExample) -> Span:
    """Of the first response to an example. Long texts are cut; of the document there is what the judge was shown as
    evidence."""
    first: ScoredResponse = example.responses[0]
    extracts = [one.text for one in example.extraction.extracts if one.text]
    return Span(
        "reward",
        {"id": first.response.id, "query": cut(first.response.query), "response": cut(first.response.text)},
        {"reward": first.reward},
        tuple(
            _dimension(name, verdict, extracts)
            for name in DIMENSIONS
            if (verdict := first.verdicts.get(name)) is not None
        ),
    )


def _dimension(name: Dimension, verdict: Verdict, extracts: list[str]) -> Span:
    known = {"score": verdict.score, "analysis": verdict.analysis, "why unscored": verdict.reason}
    seen = {"extracts": [cut(text) for text in extracts]} if name == "completeness" else {}
    outputs = {label: value for label, value in known.items() if value is not None}
    return Span(name, seen, outputs, tuple(map(_statement, verdict.statements)))


def _statement(statement: Statement) -> Span:
    evidence = [cut(chunk.text) for chunk in statement.evidence]
    known = {"support": statement.support, "analysis": statement.analysis, "why unreadable": statement.reason}
    outputs = {label: value for label, value in known.items() if value is not None}
    return Span("statement", {"statement": cut(statement.text), "evidence": evidence}, outputs)
