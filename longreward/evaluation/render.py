"""The comparison as a Markdown report and as the rows of a table."""

from longreward.evaluation.comparison import NEUTRAL, Row
from longreward.evaluation.report import Evaluation
from longreward.evaluation.statistics import format_p

HEADER = ("comparison", "measure", "SFT", "DPO", "difference", "interval", "p", "")


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
        "" if row.measure in NEUTRAL else format_p(row.difference.p_corrected),
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
        _method(evaluation) + "`t1 against t0.5` is the trained model at temperature 1 "
        "against the SFT model at 0.5. recall, unsupported and exact are measured with the corpus's own facts, which "
        "no judge sees; reward and its four dimensions are the judge's; short is the share of short instructions, "
        "without a document, that are answered right.",
        "",
        "| model | decoding | answers | without a reward | truncated |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {role} | {decoding} | {count} | {evaluation.unscored[place]} | {evaluation.truncated[place]} |"
        for place, count in evaluation.answers.items()
        for role, decoding in [place]
    ]
    return "\n".join(lines) + "\n"


def _method(evaluation: Evaluation) -> str:
    if not evaluation.rows:
        return ""
    level = evaluation.rows[0].difference.level
    tests = sum(row.measure not in NEUTRAL for row in evaluation.rows)
    return (
        f"Intervals ({1 - level:.0%}) are over documents, each for its own measure. p is that of a paired permutation "
        f"test over documents, corrected for all {tests} comparisons (Holm). A difference is marked better or worse "
        f"where p is at most {level:.2g}: of reports on two equal models, at most {level:.0%} have a mark. Intervals "
        "also hold for skewed measures and are wider than the test needs, so that a marked one can hold zero. "
    )
