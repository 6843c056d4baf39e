"""Two runs' answers side by side."""

import pytest

from longreward.errors import DataError
from longreward.evaluation.comparison import correct_changes
from longreward.evaluation.config import EvaluateConfig
from longreward.evaluation.example_metrics import (
    ExampleMetrics,
    answers_table,
    measures_table,
    prompt_hash,
    read_measures,
)
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.run_comparison import RunComparison
from longreward.records import Example, Response

EXAMPLES = {
    "1": Example(id="1", document_id="d1", context="Ada was born in 1815.", query="When?"),
    "2": Example(id="2", document_id="d2", context="Bo lives in Rome.", query="Where?"),
}
PROMPTS = {name: prompt_hash(example) for name, example in EXAMPLES.items()}


def answer(role: str, decoding: str, example: str, text: str, **values: float) -> AnswerMeasures:
    response = Response(id=f"{example}-0", example_id=example, query=EXAMPLES[example].query, text=text)
    return AnswerMeasures(role, decoding, EXAMPLES[example].document_id, response, values)  # type: ignore[arg-type]


def side(values: dict[str, float], *, decoding: str = "greedy", model: str = "dpo") -> list[ExampleMetrics]:
    return [
        ExampleMetrics(model, decoding, f"{name}-0", f"doc {name}", name, {"recall": v}) for name, v in values.items()
    ]


def test_measures_table_round_trip_identifies_prompts_by_content() -> None:
    table = measures_table([answer("dpo", "t1", "1", "1815", recall=1.0)], PROMPTS)
    renamed = EXAMPLES["1"].model_copy(update={"id": "x", "document_id": "other"})
    same = measures_table([answer("dpo", "t1", "1", "1815", recall=0.0)], {"1": prompt_hash(renamed)})
    (taken,), (again,) = read_measures(table, source="a"), read_measures(same, source="b")
    assert (taken.model, taken.decoding, taken.example, taken.document) == ("dpo", "t1", "1", "d1")
    assert dict(taken.values) == {"recall": 1.0}
    assert taken.prompt == again.prompt
    other = measures_table([answer("dpo", "t1", "2", "Rome", recall=1.0)], PROMPTS)
    assert read_measures(other, source="c")[0].prompt != taken.prompt


def test_table_without_key_columns_rejected() -> None:
    with pytest.raises(DataError, match="measures of run x: not a table of measures, expected the columns model"):
        read_measures({"columns": ["loss"], "data": []}, source="measures of run x")


def test_answers_table_pairs_models_greedy_first_up_to_limit() -> None:
    measured = [
        answer("sft", "t1", "1", "first", recall=0.0),
        answer("sft", "greedy", "1", "x" * 3000, recall=0.5),
        answer("dpo", "greedy", "1", "1815", recall=1.0),
    ]
    table = answers_table(measured)
    assert table["columns"] == ["id", "document", "decoding", "query", "SFT", "DPO", "recall SFT", "recall DPO"]
    greedy, warm = table["data"]
    assert greedy == ["1", "d1", "greedy", "When?", "x" * 1999 + "…", "1815", 0.5, 1.0]
    assert warm == ["1", "d1", "t1", "When?", "first", None, 0.0, None]
    assert len(answers_table(measured, limit=1)["data"]) == 1


def test_constant_gain_on_paired_prompts_is_significant() -> None:
    first = side({"a": 0.0, "b": 0.3, "c": 0.8, "d": 0.0, "e": 0.3, "f": 0.8})
    second = side({"f": 0.9, "e": 0.4, "d": 0.1, "c": 0.9, "b": 0.4, "a": 0.1})
    (change,) = RunComparison(first, second).changes("dpo")
    assert (change.comparison, change.measure, change.improvement) == ("greedy", "recall", 1)
    assert change.first.value == pytest.approx(1.1 / 3)
    assert change.difference.value == pytest.approx(0.1)
    assert (change.difference.low > 0, change.difference.p) == (True, 2 / 64)


def test_prompts_of_single_run_excluded() -> None:
    comparison = RunComparison(
        side({"a": 0.2, "b": 0.4, "mine": 0.0}), side({"a": 0.4, "b": 0.6, "yours": 1.0, "more": 1.0})
    )
    (change,) = comparison.changes("dpo")
    assert (change.first.value, change.second.value) == pytest.approx((0.3, 0.5))
    assert "Paired by document on the 2 held-out prompts" in comparison.overlap.sentence
    assert "1 and 2 prompts that only one run answered are excluded" in comparison.overlap.sentence


def test_runs_without_common_prompts_compared_unpaired() -> None:
    comparison = RunComparison(side({"a": 0.0, "b": 0.3, "c": 0.8}), side({"x": 0.1, "y": 0.4, "z": 0.9}))
    (change,) = comparison.changes("dpo")
    assert change.difference.value == pytest.approx(0.1)
    assert change.difference.low < 0 < change.difference.high
    assert change.improvement == 0
    assert comparison.overlap.sentence.startswith("Unpaired: the runs have no held-out prompt in common (3 and 3)")


def answers(values: dict[str, float], *, measure: str, decoding: str, document: str = "") -> list[ExampleMetrics]:
    return [
        ExampleMetrics("dpo", decoding, f"{name}-0", document or f"doc {name}", name, {measure: value})  # type: ignore[dict-item]
        for name, value in values.items()
    ]


def test_changes_compare_equal_decodings_greedy_last() -> None:
    first = [
        *answers({"a": 0.9, "b": 0.7}, measure="recall", decoding="greedy"),
        *answers({"a": 0.8, "b": 0.2}, measure="recall", decoding="t1"),
        *answers({"a": 6.0, "b": 7.0}, measure="reward", decoding="t1"),
        *answers({"a": 0.1, "b": 0.1}, measure="recall", decoding="t0.7"),
        *answers({"a": 0.4, "b": 0.6}, measure="recall", decoding="t0.3"),
    ]
    second = [
        *answers({"a": 1.0, "b": 0.9}, measure="recall", decoding="greedy"),
        *answers({"a": 8.0, "b": 9.0}, measure="reward", decoding="t1"),
        *answers({"a": 0.7, "b": 0.2}, measure="recall", decoding="t0.3"),
        *answers({"a": 0.4, "b": 0.3}, measure="recall", decoding="t1"),
        *answers({"a": 0.2, "b": 0.2}, measure="recall", decoding="t0.9"),
    ]
    found = [
        (change.comparison, change.measure, round(change.first.value, 3), round(change.second.value, 3))
        for change in RunComparison(first, second).changes("dpo")
    ]
    assert found == [
        ("t0.3", "recall", 0.5, 0.45),
        ("t1", "recall", 0.5, 0.35),
        ("t1", "reward", 6.5, 8.5),
        ("greedy", "recall", 0.8, 0.95),
    ]
    changed = RunComparison(first, second).changed_examples("dpo", decoding="t1", measure="recall")
    assert [(change.first_id, change.before, change.after) for change in changed] == [("a", 0.8, 0.4), ("b", 0.2, 0.3)]


def test_changed_examples_average_samples_of_one_model() -> None:
    first = [
        ExampleMetrics(model, "t1", f"a-{n}", "d", "a", {"recall": value})
        for model, values in (("dpo", (0.2, 0.4, 0.9)), ("sft", (0.0, 0.0)))
        for n, value in enumerate(values)
    ]
    second = [
        ExampleMetrics("dpo", "t1", f"x-{n}", "other d", "a", {"recall": value}) for n, value in enumerate((0.3, 0.4))
    ]
    (change,) = RunComparison(first, second).changed_examples("dpo", decoding="t1", measure="recall")
    assert (change.first_id, change.second_id, change.document) == ("a", "x", "d")
    assert (change.before, change.after) == pytest.approx((0.5, 0.35))


def test_documents_identified_by_prompt_not_name() -> None:
    values = {name: 0.1 * n for n, name in enumerate("abcdefgh")}
    first = answers(values, measure="recall", decoding="greedy", document="mine")
    second = answers(
        {name: v + 0.2 for name, v in values.items()}, measure="recall", decoding="greedy", document="yours"
    )
    (change,) = RunComparison(first, second).changes("dpo")
    assert (change.difference.documents, change.difference.p, change.improvement) == (1, 1.0, 0)


def test_unpaired_documents_with_equal_names_are_distinct() -> None:
    first = answers({"a": 0.1, "b": 0.3}, measure="recall", decoding="greedy", document="d")
    second = answers({"x": 0.2, "y": 0.8}, measure="recall", decoding="greedy", document="d")
    (change,) = RunComparison(first, second).changes("dpo")
    assert change.difference.documents == 2


def test_configured_confidence_applies_to_comparison() -> None:
    first = side({name: 0.1 * n for n, name in enumerate("abcdefg")})
    second = side({name: 0.1 * n + 0.02 * (n % 3) for n, name in enumerate("abcdefg")})
    widths = {}
    for confidence in (0.8, 0.99):
        (change,) = RunComparison(first, second).changes("dpo", EvaluateConfig(confidence=confidence))
        widths[confidence] = change.difference.high - change.difference.low
        assert change.difference.level == pytest.approx(1 - confidence)
    assert widths[0.8] * 1.3 < widths[0.99]


def test_report_corrects_for_measures_but_not_lengths() -> None:
    names = "abcdefgh"
    first = [
        ExampleMetrics("dpo", "greedy", f"{n}-0", f"d{n}", n, {"recall": 0.5, "exact": 0.1, "tokens": 9.0})
        for n in names
    ]
    second = [
        ExampleMetrics("dpo", "greedy", f"{n}-0", f"d{n}", n, {"recall": 0.75, "exact": 0.1, "tokens": 7.0})
        for n in names
    ]
    changes = {
        change.measure: change.difference for change in correct_changes(RunComparison(first, second).changes("dpo"))
    }
    assert changes["recall"].p == changes["tokens"].p == 2 / 2**8
    assert changes["recall"].p_corrected == 2 * 2 / 2**8
    assert changes["tokens"].p_corrected == 2 / 2**8


def test_only_common_decodings_and_models_compared() -> None:
    first = side({"a": 0.1}, decoding="t1") + side({"a": 0.1})
    assert [change.comparison for change in RunComparison(first, side({"a": 0.2})).changes("dpo")] == ["greedy"]
    assert RunComparison(first, side({"a": 0.2}, model="sft")).changes("dpo") == []


def test_changed_examples_sorted_by_size_of_change() -> None:
    comparison = RunComparison(side({"a": 0.5, "b": 0.9, "c": 0.2}), side({"a": 0.5, "b": 0.1, "c": 0.4}))
    changed = comparison.changed_examples("dpo", decoding="greedy", measure="recall")
    assert [(change.first_id, change.before, change.after) for change in changed] == [("b", 0.9, 0.1), ("c", 0.2, 0.4)]


def test_equal_gains_and_losses_alternate() -> None:
    first, second = side({"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}), side({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0})
    changed = RunComparison(first, second).changed_examples("dpo", decoding="greedy", measure="recall")
    assert [change.first_id for change in changed] == ["c", "a", "d", "b"]
