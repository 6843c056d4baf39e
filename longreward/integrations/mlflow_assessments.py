"""Verdicts as MLflow's assessments, for traces of evaluations and of pipeline runs."""

from mlflow.entities import AssessmentError, AssessmentSource, Feedback

from longreward.integrations.verdict_text import rationale
from longreward.records import Verdict

UNSCORED = "UNSCORED"  # the error code of an assessment without a score


def to_feedback(name: str, verdict: Verdict, judge: str) -> Feedback:
    """Return a verdict as MLflow's assessment; one without a score has the error UNSCORED with the reason.

    Args:
        name: the dimension.
        judge: the name of the judge, if the verdict does not have it.
    """
    reason = verdict.reason or "no score"
    if verdict.bounds is not None:
        reason = "between {:g} and {:g}: adaptive scoring stopped, as no pair depends on it".format(*verdict.bounds)
    error = None if verdict.score is not None else AssessmentError(UNSCORED, reason)
    return Feedback(
        name=name,
        value=verdict.score,
        error=error,
        source=AssessmentSource(source_type="LLM_JUDGE", source_id=verdict.judge or judge),
        rationale=rationale(verdict) or None,
    )
