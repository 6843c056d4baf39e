import random

import pytest
from label_sets import make_item, make_labels
from sklearn.metrics import cohen_kappa_score

from longreward.evaluation.statistics import IntervalOptions
from longreward.human_labels.agreement import (
    ALL,
    JUDGE,
    RatedPair,
    accuracy_by_stratum,
    compare_repeats,
    compare_reviewers,
    compare_with_labels,
    confusion,
    disagreements,
    judge_ratings,
    kappa,
    length_ratings,
    light_kappa,
    pairwise_accuracy,
)
from longreward.human_labels.items import LabelSet

OPTIONS = IntervalOptions()


def support_pairs(*values: tuple[float, float]) -> list[RatedPair]:
    return [RatedPair(str(index), "support", first, second) for index, (first, second) in enumerate(values)]


def test_kappa_by_hand() -> None:
    # Shares of none, partial, full: 1/4, 1/4, 1/2 and 1/4, 1/2, 1/4. Chance agreement 5/16, observed 3/4.
    pairs = support_pairs((1.0, 1.0), (1.0, 0.5), (0.5, 0.5), (0.0, 0.0))
    plain, weighted = kappa(pairs, OPTIONS), kappa(pairs, OPTIONS, weights="quadratic")
    assert plain is not None
    assert weighted is not None
    assert plain.value == pytest.approx((3 / 4 - 5 / 16) / (1 - 5 / 16))
    assert weighted.value == pytest.approx(1 - (1 / 16) / (5 / 16))
    assert plain.low < plain.value < plain.high
    assert plain.documents == 4


def test_interval_is_centred_on_kappa() -> None:
    rng = random.Random(1)
    pairs = [RatedPair(str(n % 30), "score", float(rng.randint(0, 10)), float(rng.randint(0, 10))) for n in range(90)]
    for weights in (None, "quadratic"):
        estimate = kappa(pairs, OPTIONS, weights=weights)  # type: ignore[arg-type]
        assert estimate is not None
        levels = list(zip(*(pair.levels for pair in pairs), strict=True))
        assert estimate.value == pytest.approx(cohen_kappa_score(*levels, weights=weights))
        assert estimate.low < 0 < estimate.high  # random ratings
        assert estimate.documents == 30


def test_perfect_agreement_on_few_documents_is_not_certain() -> None:
    estimate = kappa(support_pairs((1.0, 1.0), (0.0, 0.0), (0.5, 0.5)), OPTIONS)
    assert estimate is not None
    assert estimate.value == 1.0
    assert estimate.low < 0.5


def test_kappa_is_undefined_if_both_have_one_value() -> None:
    assert kappa(support_pairs((1.0, 1.0), (1.0, 1.0)), OPTIONS) is None
    assert kappa([], OPTIONS) is None
    constant = kappa(support_pairs((1.0, 1.0), (0.0, 1.0)), OPTIONS)
    assert constant is not None
    assert constant.value == 0.0


def test_pairwise_accuracy_leaves_out_reviewers_ties() -> None:
    values = [(1.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]  # right, wrong, the judge ties, the reviewer ties
    pairs = [RatedPair(str(index), "preference", *pair) for index, pair in enumerate(values)]
    accuracy = pairwise_accuracy(pairs, OPTIONS)
    assert accuracy is not None
    assert accuracy.value == pytest.approx(1.5 / 3)
    assert accuracy.documents == 3
    assert pairwise_accuracy(support_pairs((1.0, 1.0)), OPTIONS) is None


def test_each_label_counts_once() -> None:
    labels = make_labels(
        "support",
        {
            "a": (1.0, {"anna": 1.0, "ben": 0.5}),
            "b": (0.0, {"anna": 0.0}),
            "c": (None, {"anna": 0.0}),
            "d": (1.0, {}),
        },
    )
    (agreement,) = compare_with_labels(labels, {JUDGE: judge_ratings(labels)}, OPTIONS)
    assert (agreement.kind, agreement.aspect, agreement.count, agreement.missing) == ("support", "faithfulness", 3, 1)
    assert agreement.exact is not None
    assert agreement.exact.value == pytest.approx(2 / 3)
    assert agreement.exact.documents == 2
    assert confusion(labels, judge_ratings(labels), "support") == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    ((label, value),) = disagreements(labels, judge_ratings(labels))
    assert (label.item, label.reviewer, label.value, value) == ("a", "ben", 0.5, 1.0)


def test_several_aspects_have_a_row_for_all() -> None:
    first = make_labels("score", {"a": (7.0, {"anna": 7.0}), "b": (2.0, {"anna": 3.0})})
    second = make_labels("score", {"c": (9.0, {"anna": 9.0})}, aspect="helpfulness")
    labels = LabelSet({**first.items, **second.items}, (*first.labels, *second.labels))
    rows = compare_with_labels(labels, {JUDGE: judge_ratings(labels)}, OPTIONS)
    assert [(row.aspect, row.count) for row in rows] == [(ALL, 3), ("helpfulness", 1), ("completeness", 2)]


def test_length_only_rater() -> None:
    pairs = {
        "longer": make_item("longer", "preference", responses=("a long answer", "short")),
        "shorter": make_item("shorter", "preference", responses=("short", "a long answer")),
        "equal": make_item("equal", "preference", responses=("two", "one")),
    }
    labels = make_labels("preference", {id: (0.0, {"anna": 1.0}) for id in pairs})
    assert length_ratings(LabelSet(pairs, labels.labels)) == {"longer": 1.0, "shorter": -1.0, "equal": 0.0}

    scores = make_labels("score", {id: (0.0, {"anna": score}) for id, score in (("x", 9.0), ("y", 2.0), ("z", 5.0))})
    texts = {"x": "short", "y": "the longest of all", "z": "in between"}
    items = {id: make_item(id, "score", responses=(text,)) for id, text in texts.items()}
    # The values of the labels, in the order of the lengths.
    assert length_ratings(LabelSet(items, scores.labels)) == {"x": 2.0, "z": 5.0, "y": 9.0}


def test_judge_against_itself() -> None:
    labels = make_labels("support", {"a": (1.0, {"anna": 1.0}), "b": (0.0, {"anna": 0.0}), "unlabelled": (1.0, {})})
    rounds = [{"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.5}, {"a": 1.0, "b": None}]
    (repeat,) = compare_repeats(labels, rounds, OPTIONS)
    assert (repeat.count, repeat.missing) == (4, 2)  # three pairs of rounds of a, one of b
    assert repeat.exact is not None
    assert repeat.exact.value == pytest.approx(3 / 4)


def test_reviewers_and_lights_kappa() -> None:
    values = {"anna": (1.0, 0.0, 0.5, 1.0), "ben": (1.0, 0.0, 0.5, 0.5), "cy": (0.0, 0.0, 1.0, 1.0)}
    rows = {f"i{n}": (1.0, {name: own[n] for name, own in values.items()}) for n in range(4)}
    pairs = compare_reviewers(make_labels("support", rows), OPTIONS)
    assert [pair.rater for pair in pairs] == ["anna, ben", "anna, cy", "ben, cy"]
    expected = [
        cohen_kappa_score([2 * value for value in values[a]], [2 * value for value in values[b]])
        for a, b in (("anna", "ben"), ("anna", "cy"), ("ben", "cy"))
    ]
    assert light_kappa(pairs, lambda pair: pair.kappa) == pytest.approx(sum(expected) / 3)
    assert compare_reviewers(make_labels("support", {"a": (1.0, {"anna": 1.0})}), OPTIONS) == []


def test_accuracy_by_margin() -> None:
    near = make_labels("preference", {"a": (1.0, {"anna": -1.0})}, stratum="margin below 1")
    far = make_labels("preference", {"b": (1.0, {"anna": 1.0})}, stratum="margin 3 and more")
    labels = LabelSet({**near.items, **far.items}, (*near.labels, *far.labels))
    strata = accuracy_by_stratum(labels, judge_ratings(labels), OPTIONS)
    assert {name: (count, estimate and estimate.value) for name, (count, estimate) in strata.items()} == {
        "margin 3 and more": (1, 1.0),
        "margin below 1": (1, 0.0),
    }
