"""A verdict as text, for the tools that show a rationale beside a score."""

from longreward.records import Verdict

SUPPORT_LABELS = {1.0: "fully supported", 0.5: "partially supported", 0.0: "not supported", None: "unreadable"}


def rationale(verdict: Verdict) -> str:
    """Return why the judge gave this score: its analysis, each statement with its support, or why there is no score."""
    lines = [verdict.analysis] if verdict.analysis else []
    lines += [f"- {SUPPORT_LABELS[statement.support]}: {statement.text}" for statement in verdict.statements]
    if verdict.reason:
        lines.append(f"No score: {verdict.reason}")
    return "\n".join(lines)
