"""The agreement with human labels that `judge.check` requires."""

from pathlib import Path

from longreward.human_labels.agreement import ALL, JUDGE
from longreward.human_labels.items import LabelSet
from longreward.human_labels.report import LabelReport, make_report
from longreward.human_labels.verdicts import judge_rounds
from longreward.judge.config import CheckConfig, JudgeConfig
from longreward.reward.config import ScoreConfig


async def check_labels(folder: Path, judge: JudgeConfig, score: ScoreConfig, *, ledger: Path | None) -> LabelReport:
    """Judge the labelled items of a folder and compare; raises DataError if there are none, JudgeError like scoring."""
    labels = LabelSet.read(folder)
    labelled = labels.by_item()
    items = [item for item in labels.items.values() if item.id in labelled]
    name, rounds = await judge_rounds(items, judge, score, rounds=1, ledger=ledger)
    return make_report(labels, judge=name, rounds=rounds)


def agreement_failures(report: LabelReport, config: CheckConfig) -> list[str]:
    """Return one sentence per question in which the judge agrees too little, or for which there are too few labels.

    Each kind of question needs `min_labels`. A single dimension counts only if it has as many.
    """
    failures = []
    kinds_with_aspects = {agreement.kind for agreement in report.agreements if agreement.aspect == ALL}
    for agreement in report.agreements:
        if agreement.rater != JUDGE:
            continue
        is_kind = agreement.aspect == ALL or agreement.kind not in kinds_with_aspects
        if agreement.count < config.min_labels:
            if is_kind:
                failures.append(
                    f"{agreement.question}: {agreement.count} labels with a verdict of the judge are too few "
                    f"(judge.check.min_labels: {config.min_labels}); label more items, or lower it"
                )
            continue
        kappa = agreement.weighted_kappa
        if kappa is None:
            failures.append(f"{agreement.question}: kappa is not defined, as reviewers and judge have one value only")
        elif kappa.value < config.min_kappa:
            failures.append(
                f"{agreement.question}: the quadratic kappa with {agreement.count} human labels is only "
                f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f}; judge.check.min_kappa: {config.min_kappa:g})"
            )
    return failures


def agreement_metrics(report: LabelReport) -> dict[str, float]:
    """Return the judge's kappas as metrics."""
    return {
        f"judge_check/kappa/{agreement.kind}/{agreement.aspect}": agreement.weighted_kappa.value
        for agreement in report.agreements
        if agreement.rater == JUDGE and agreement.weighted_kappa is not None
    }
