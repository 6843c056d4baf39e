"""Two runs' answers side by side."""

import pytest

from longreward.errors import DataError
from longreward.evaluation.measuring import Measured
from longreward.evaluation.tables import Taken, answers_table, measures_table, read_measures
from longreward.evaluation.versus import Versus
from longreward.records import Example, Response

EXAMPLES = {
    "1": Example(id="1", document_id="d1", context="Ada was born in 1815.", query="When?"),
    "2": Example(id="2", document_id="d2", context="Bo lives in Rome.", query="Where?"),
}


def answer(role: str, decoding: str, example: str, text: str, **values: float) -> Measured:
    response = Response(id=f"{example}-0", example_id=example, query=EXAMPLES[example].query, text=text)
    return Measured(role, decoding, EXAMPLES[example].document_id, response, values)  # type: ignore[arg-type]


def side(values: dict[str, float], *, decoding: str = "greedy", model: str = "dpo") -> list[Taken]:
    return [Taken(model, decoding, f"{name}-0", f"doc {name}", name, {"recall": v}) for name, v in values.items()]


def test_what_a_run_keeps_is_read_back_and_equal_prompts_are_known_whatever_their_ids() -> None:
    table = measures_table([answer("dpo", "t1", "1", "1815", recall=1.0)], EXAMPLES)
    renamed = {"1": EXAMPLES["1"].model_copy(update={"id": "x", "document_id": "other"})}
    same = measures_table([answer("dpo", "t1", "1", "1815", recall=0.0)], renamed)
    (taken,), (again,) = read_measures(table, source="a"), read_measures(same, source="b")
    assert (taken.model, taken.decoding, taken.example, taken.document) == ("dpo", "t1", "1", "d1")
    assert dict(taken.values) == {"recall": 1.0}
    assert taken.prompt == again.prompt
    other = measures_table([answer("dpo", "t1", "2", "Rome", recall=1.0)], EXAMPLES)
    assert read_measures(other, source="c")[0].prompt != taken.prompt


def test_a_table_of_something_else_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="measures of run x is no table of measures: expected the columns model"):
        read_measures({"columns": ["loss"], "data": []}, source="measures of run x")


def test_the_table_of_answers_shows_both_models_side_by_side_greedy_first_and_no_more_than_its_limit() -> None:
    measured = [
        answer("sft", "t1", "1", "first", recall=0.0),
        answer("sft", "greedy", "1", "x" * 3000, recall=0.5),
        answer("dpo", "greedy", "1", "1815", recall=1.0),
    ]
    table = answers_table(measured, EXAMPLES)
    assert table["columns"] == ["id", "document", "decoding", "query", "SFT", "DPO", "recall SFT", "recall DPO"]
    greedy, warm = table["data"]
    assert greedy == ["1", "d1", "greedy", "When?", "x" * 1999 + "…", "1815", 0.5, 1.0]
    assert warm == ["1", "d1", "t1", "When?", "first", None, 0.0, None]
    assert len(answers_table(measured, EXAMPLES, limit=1)["data"]) == 1


def test_a_constant_gain_on_the_same_prompts_is_shown_though_the_prompts_differ_much() -> None:
    first = side({"a": 0.0, "b": 0.3, "c": 0.8, "d": 0.0, "e": 0.3, "f": 0.8})
    second = side({"f": 0.9, "e": 0.4, "d": 0.1, "c": 0.9, "b": 0.4, "a": 0.1})
    (change,) = Versus(first, second).changes("dpo")
    assert (change.decoding, change.measure, change.gain) == ("greedy", "recall", 1)
    assert change.first.value == pytest.approx(1.1 / 3)
    assert change.difference.value == pytest.approx(0.1)
    assert (change.difference.low > 0, change.difference.p) == (True, 2 / 64)


def test_prompts_that_only_one_run_answered_are_left_out_and_said() -> None:
    versus = Versus(side({"a": 0.2, "b": 0.4, "mine": 0.0}), side({"a": 0.4, "b": 0.6, "yours": 1.0}))
    (change,) = versus.changes("dpo")
    assert (change.first.value, change.second.value) == pytest.approx((0.3, 0.5))
    assert "Paired on the 2 held-out prompts" in versus.shared.sentence
    assert "1 and 1 that only one of them answered are left out" in versus.shared.sentence


def test_runs_without_a_prompt_in_common_are_compared_unpaired_with_the_width_of_two_samples() -> None:
    versus = Versus(side({"a": 0.0, "b": 0.3, "c": 0.8}), side({"x": 0.1, "y": 0.4, "z": 0.9}))
    (change,) = versus.changes("dpo")
    assert change.difference.value == pytest.approx(0.1)
    assert change.difference.low < 0 < change.difference.high
    assert change.gain == 0
    assert versus.shared.sentence.startswith("Unpaired: the runs share no held-out prompt (3 and 3 of their own)")


def test_only_decodings_and_models_that_both_have_are_compared() -> None:
    first = side({"a": 0.1}, decoding="t1") + side({"a": 0.1})
    assert [change.decoding for change in Versus(first, side({"a": 0.2})).changes("dpo")] == ["greedy"]
    assert Versus(first, side({"a": 0.2}, model="sft")).changes("dpo") == []


def test_the_prompts_that_moved_most_come_first_and_unmoved_ones_not_at_all() -> None:
    versus = Versus(side({"a": 0.5, "b": 0.9, "c": 0.2}), side({"a": 0.5, "b": 0.1, "c": 0.4}))
    moved = versus.moved("dpo", decoding="greedy", measure="recall")
    assert [(one.first_id, one.before, one.after) for one in moved] == [("b", 0.9, 0.1), ("c", 0.2, 0.4)]


def test_rises_and_falls_of_one_size_are_shown_in_turn() -> None:
    first, second = side({"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}), side({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0})
    moved = Versus(first, second).moved("dpo", decoding="greedy", measure="recall")
    assert [one.first_id for one in moved] == ["c", "a", "d", "b"]
