import json
from pathlib import Path

import pytest
from label_sets import make_item, make_labels

from longreward.builtin.offline_judge.judge import NAME
from longreward.errors import DataError
from longreward.human_labels.gate import agreement_failures, agreement_metrics, check_labels
from longreward.human_labels.items import Label, LabelSet
from longreward.human_labels.report import make_report, render_markdown, to_json
from longreward.judge import JudgeConfig
from longreward.judge.config import CheckConfig
from longreward.reward import ScoreConfig


def support_labels(verdicts: tuple[float, ...], labels: tuple[float, ...]) -> LabelSet:
    rows = {
        f"i{n:02}": (verdict, {"anna": label}) for n, (verdict, label) in enumerate(zip(verdicts, labels, strict=True))
    }
    return make_labels("support", rows)


def test_markdown_shows_raters_matrix_and_disagreements() -> None:
    labels = support_labels((1.0, 0.5, 0.0, 1.0), (1.0, 0.5, 0.0, 0.0))
    report = make_report(labels, judge="j", rounds=[{"i00": 1.0, "i01": 0.5, "i02": 0.0, "i03": 1.0}] * 2)
    text = render_markdown(report)
    assert text.startswith("# j: agreement with human labels\n\n4 labels of 4 items by 1 reviewer: anna.")
    rows = [line.split(" | ")[:3] for line in text.splitlines() if line.startswith("| support, faithfulness")]
    assert rows == [
        ["| support, faithfulness", "judge", "4"],
        ["| support, faithfulness", "length only", "4"],
        ["| support, faithfulness", "judge against itself", "4"],
    ]
    assert "| none | 1 | 0 | 1 |" in text
    assert "1 of 1, the largest first" in text
    assert "| i03 | faithfulness | anna | none | full | Ann Lee founded Keld. |  |" in text


def test_missing_verdicts_are_reported() -> None:
    rows: dict[str, tuple[float | None, dict[str, float]]] = {"a": (1.0, {"anna": 1.0}), "b": (None, {"anna": 0.0})}
    text = render_markdown(make_report(make_labels("support", rows)))
    assert "1 label without a verdict of the judge; `longreward review report --judge`" in text


def test_untrusted_text_stays_in_its_cell() -> None:
    item = make_item("a", statement="one | two\nthree", verdict=1.0)
    labels = LabelSet({"a": item}, (Label(item="a", reviewer="anna", value=0.0, comment="x | y"),))
    assert "| one \\| two three | x \\| y |" in render_markdown(make_report(labels))


def test_json_has_all_figures() -> None:
    labels = support_labels((1.0, 0.5, 0.0, 1.0), (1.0, 0.5, 0.0, 0.0))
    data = json.loads(json.dumps(to_json(make_report(labels))))
    assert (data["judge"], data["labels"], data["items"]) == ("j", 4, 4)
    assert data["agreement"][0]["exact"]["value"] == 0.75
    assert data["confusion"]["support"][0] == [1, 0, 1]
    assert data["disagreements"][0]["item"] == "i03"


def test_no_labels() -> None:
    with pytest.raises(DataError, match="there are no labels yet"):
        make_report(make_labels("support", {"a": (1.0, {})}))


def test_gate_on_kappa_and_number_of_labels() -> None:
    values = (1.0, 0.5, 0.0) * 4
    agree = make_report(support_labels(values, values))
    assert agreement_failures(agree, CheckConfig(min_labels=12)) == []
    assert agreement_metrics(agree) == {"judge_check/kappa/support/faithfulness": 1.0}
    assert agreement_failures(agree, CheckConfig()) == [
        "support, faithfulness: 12 labels with a verdict of the judge are too few (judge.check.min_labels: 20); label "
        "more items, or lower it"
    ]
    opposite = make_report(support_labels(values, tuple(1 - value for value in values)))
    (failure,) = agreement_failures(opposite, CheckConfig(min_labels=12))
    assert failure.startswith("support, faithfulness: the quadratic kappa with 12 human labels is only -1.00 (-1.00 to")
    assert failure.endswith("judge.check.min_kappa: 0.4)")
    constant = make_report(support_labels((1.0,) * 3, (1.0,) * 3))
    (failure,) = agreement_failures(constant, CheckConfig(min_labels=2))
    assert "kappa is not defined" in failure


def test_gate_leaves_out_single_dimensions_with_few_labels() -> None:
    good = make_labels("score", {f"a{n}": (float(n), {"anna": float(n)}) for n in range(11)})
    bad = make_labels("score", {"b0": (0.0, {"anna": 10.0}), "b1": (10.0, {"anna": 9.0})}, aspect="helpfulness")
    report = make_report(LabelSet({**good.items, **bad.items}, (*good.labels, *bad.labels)))
    assert agreement_failures(report, CheckConfig(min_labels=3, min_kappa=0.3)) == []
    (failure,) = agreement_failures(report, CheckConfig(min_labels=2, min_kappa=0.3))
    assert failure.startswith("score, helpfulness: the quadratic kappa with 2 human labels is only")


async def test_check_judges_labelled_items_only(tmp_path: Path) -> None:
    wrong = make_item("wrong", statement="Bo Ray sold Keld in 1700.")
    labels = LabelSet({"a": make_item("a"), "wrong": wrong, "unlabelled": make_item("unlabelled")}, ()).with_labels(
        [Label(item="a", reviewer="anna", value=1.0), Label(item="wrong", reviewer="anna", value=0.0)]
    )
    labels.write(tmp_path)
    report = await check_labels(tmp_path, JudgeConfig(), ScoreConfig(), ledger=None)
    assert report.judge == NAME
    assert report.ratings == {"a": 1.0, "wrong": 0.0}
    assert agreement_failures(report, CheckConfig(min_labels=2)) == []
