"""The comparison as a Markdown report and as the rows of a table."""

from longreward.evaluation.comparison import NEUTRAL, Row
from longreward.evaluation.report import Evaluation

HEADER = ("comparison", "measure", "SFT", "DPO", "difference", "interval", "")


def cells(row: Row) -> tuple[str, ...]:
    """One row as text, in the order of HEADER; the last cell says better, worse or nothing."""
    digits = 1 if row.measure in NEUTRAL else 3
    mark = {1: "better", -1: "worse", 0: ""}[row.gain]
    return (
        row.comparison,
        row.measure,
        f"{row.sft.value:.{digits}f}",
        f"{row.dpo.value:.{digits}f}",
        f"{row.difference.value:+.{digits}f}",
        f"[{row.difference.low:+.{digits}f}, {row.difference.high:+.{digits}f}]",
        mark,
    )


def markdown(evaluation: Evaluation) -> str:
    """The whole report."""
    lines = [
        "# SFT against DPO on held-out documents",
        "",
        evaluation.sentence,
        "",
        f"Champion rule met: {'yes' if evaluation.champion else 'no'} ({evaluation.champion_reason}).",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in evaluation.rows]
    lines += [
        "",
        "Intervals are bootstrap intervals over documents. `t1 against t0.5` is the trained model at temperature 1 "
        "against the SFT model at 0.5. recall, unsupported and exact are measured with the corpus's own facts, which "
        "no judge sees; reward and its four dimensions are the judge's; short is the share of short instructions, "
        "without a document, that are answered right.",
        "",
        "| model | decoding | answers | without a reward |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {role} | {decoding} | {count} | {evaluation.unscored[role, decoding]} |"
        for (role, decoding), count in evaluation.answers.items()
    ]
    return "\n".join(lines) + "\n"
