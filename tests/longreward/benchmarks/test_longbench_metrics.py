from typing import Any

import pytest

from longreward.benchmarks.longbench import metrics
from longreward.benchmarks.longbench.metrics import automatic_metric, chinese_f1, f1, metric_name, rouge_l
from longreward.benchmarks.longbench.sets import SETS


@pytest.fixture
def by_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_jieba", lambda: None)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Kelden", "kelden.", 1.0),
        ("The stone mill", "a stone mill", 1.0),
        ("The red stone mill.", "a stone mill", 0.8),  # 2/3 and 2/2
        ("mill mill", "mill", 2 / 3),  # 1/2 and 1/1: a word counts as often as the other side has it
        ("A-mill", "amill", 1.0),  # punctuation goes before articles do
        ("Kelden", "Osten", 0.0),
        ("", "Osten", 0.0),
        ("the", "a", 0.0),
    ],
)
def test_f1_ignores_case_punctuation_and_articles(answer: str, reference: str, expected: float) -> None:
    assert f1(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the mill was built of stone", "a mill of stone", 0.6),  # 3 of 6, 3 of 4
        ("stone of mill", "mill of stone", 1 / 3),  # a subsequence keeps the order
        ("mill mill mill", "mill", 1.0),  # distinct words
        ("Mill", "mill", 0.0),  # capitals differ
        # A sentence's common words with all sentences of the other count together: w1 w2 w3 w5, of 8 and of 5.
        ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", 2 * 0.5 * 0.8 / 1.3),
        ("B. ", "B", 2 / 3),  # the space behind the stop is a word of its own to the package
        ("", "mill", 0.0),
        (".", "mill", 0.0),
        (" ", "mill", 0.0),
    ],
)
def test_rouge_l_equals_package_rouge(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected, abs=1e-7)


def test_rouge_l_of_long_text_does_not_recurse() -> None:
    text = " ".join(f"w{n}" for n in range(1500))  # where the package breaks off and LongBench writes 0
    assert rouge_l(text, text) == pytest.approx(1.0)


@pytest.mark.usefixtures("by_character")
def test_without_jieba_chinese_split_into_characters_and_named() -> None:
    assert chinese_f1("在厦门大学举办。", "厦门大学。") == pytest.approx(8 / 11)  # 4 of 7, 4 of 4
    assert automatic_metric(SETS["dureader"], "在厦门", ["厦门"]) == pytest.approx(0.8)  # 2 of 3, 2 of 2
    assert chinese_f1("《年鉴》", "年鉴") == pytest.approx(0.8)  # LongBench's list of marks lacks the opening one
    assert metric_name(SETS["multifieldqa_zh"]) == "f1_by_character"
    assert metric_name(SETS["vcsum"]) == "rouge_l_by_character"
    assert metric_name(SETS["qasper"]) == "f1"


def test_jieba_splits_chinese_into_words() -> None:
    pytest.importorskip("jieba")
    assert chinese_f1("在厦门大学举办。", "厦门大学。") == pytest.approx(0.5)  # 1 of 3, 1 of 1
    assert metric_name(SETS["multifieldqa_zh"]) == "f1"


def test_best_score_over_references() -> None:
    assert automatic_metric(SETS["qasper"], "stone mill", ["Osten", "a stone mill", "mill"]) == 1.0


LABELS = ["Date", "City", "City or town", "Town"]


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Date", "Date", 1.0),
        ("Type: Date or City", "Date", 0.5),
        ("Town", "Date", 0.0),
        ("City or town", "City or town", 1.0),  # "City" is contained in the reference
        ("", "Date", 0.0),
    ],
)
def test_classification_counts_named_labels(answer: str, reference: str, expected: float) -> None:
    assert automatic_metric(SETS["trec"], answer, [reference], LABELS) == expected


def test_classification_leaves_out_label_behind_removed_one_as_published() -> None:
    # "a" is removed while the list is iterated, which skips "ab": two labels remain.
    assert automatic_metric(SETS["trec"], "a ab abc", ["abc"], ["a", "ab", "abc"]) == 0.5


@pytest.mark.parametrize(
    ("name", "answer", "reference", "expected"),
    [
        ("passage_count", "There are 7", "7", 1.0),
        ("passage_count", "7 of 30, so 7", "7", 2 / 3),
        ("passage_count", "seven", "7", 0.0),
        ("passage_retrieval_en", "Paragraph 12", "Paragraph 12", 1.0),
        ("passage_retrieval_en", "Paragraph 1 or 12", "Paragraph 12", 0.5),
        ("passage_retrieval_zh", "是段落3", "段落3", 1.0),
        ("lcc", "\n\n# comment\nreturn a + b\nreturn c", "return a + b", 1.0),
        ("lcc", "return a + b", "return a + c", 0.92),  # 22 of 24 characters match
        ("repobench-p", "", "return a", 0.0),
    ],
)
def test_metrics_of_synthetic_and_code_sets(name: Any, answer: str, reference: str, expected: float) -> None:
    assert automatic_metric(SETS[name], answer, [reference]) == pytest.approx(expected)


def test_sets_have_metrics_of_longbench() -> None:
    assert [name for name, data_set in SETS.items() if data_set.metric in ("classification", "count", "retrieval")] == [
        *("trec", "lsht", "passage_count", "passage_retrieval_en", "passage_retrieval_zh"),
    ]
    rouge = [name for name, metric in SETS.items() if metric.metric == "rouge_l"]
    assert rouge == ["dureader", "gov_report", "qmsum", "multi_news", "vcsum", "samsum"]
    chinese = [name for name, metric in SETS.items() if metric.chinese]
    assert chinese == ["multifieldqa_zh", "dureader", "vcsum", "lsht", "passage_retrieval_zh"]
