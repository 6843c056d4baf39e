"""Preferences from probabilities, the order of the two answers, and the length-controlled rate."""

import math
import random
from pathlib import Path

import pytest

from longreward.benchmarks.alpaca_eval.benchmark import ShownPreference, is_switched, parse_preference, undo_switch
from longreward.benchmarks.alpaca_eval.length_control import (
    AnswerLengths,
    GamedBaselines,
    length_controlled_win_rate,
    read_gamed_baselines,
)
from longreward.chat_model import with_logprobs
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions

FAST_INTERVALS = IntervalOptions(resamples=5)


def make_reply(**tops: float) -> str:
    return with_logprobs("m", {"content": [{"top_logprobs": [{"token": t, "logprob": p} for t, p in tops.items()]}]})


def test_preference_is_two_minus_share_of_first_token() -> None:
    quarter = parse_preference(make_reply(m=math.log(0.2), M=math.log(0.6), Both=-3.0))  # 0.2 / (0.2 + 0.6) = 0.25
    assert quarter.value == pytest.approx(1.75)
    assert quarter == ShownPreference(quarter.value, weighted=True)


def test_token_without_logprob_has_probability_zero() -> None:
    assert parse_preference(make_reply(m=-0.5, x=-1.0)).value == 1.0
    assert parse_preference(make_reply(M=-9.0, x=-0.1)).value == 2.0
    assert parse_preference(make_reply(x=-0.1)) == ShownPreference(None, weighted=True)


def test_extreme_logprobs_do_not_overflow() -> None:
    assert parse_preference(make_reply(m=-1e4, M=-0.0)).value == 2.0
    assert parse_preference(make_reply(m=-0.0, M=-1e4)).value == 1.0


@pytest.mark.parametrize(("text", "strict"), [("m", 1.0), (" M\n", 2.0), ("M.", 2.0), ("model m", None), ("", None)])
def test_letter_without_logprobs_has_only_strict_value(text: str, strict: float | None) -> None:
    assert parse_preference(text) == ShownPreference(strict, weighted=False)
    assert parse_preference(text, parsing="published") == ShownPreference(None, weighted=False)


def test_undo_switch() -> None:
    assert undo_switch(1.25, switched=True) == 1.75
    assert undo_switch(1.25, switched=False) == 1.25
    assert undo_switch(None, switched=True) is None


def test_order_matches_alpaca_eval() -> None:
    """The order in which `alpaca_eval` 0.6.6 presents these instructions with its seed."""
    towns = ["Tarn", "Marwick", "Solby", "Penmoor", "Ostrand"]
    assert [is_switched(f"Where is {town}?") for town in towns] == [True, False, True, False, False]


def make_annotations(count: int, seed: int) -> tuple[GamedBaselines, list[AnswerLengths]]:
    """Create annotations; the reference values come from `alpaca_eval` with the same annotations."""
    rng = random.Random(seed)
    hard = [round(rng.gauss(0, 1), 4) for _ in range(count)]
    rows = []
    for shift in (1.0, -1.0):
        for index in range(count):
            length = round(rng.gauss(shift, 0.5), 4)
            preference = round(min(1, max(0, 0.5 - 0.2 * length + rng.gauss(0, 0.1))), 4)
            rows.append((length, hard[index], preference))
    cases = []
    for index in range(count):
        baseline, model = rng.randrange(200, 3000), rng.randrange(100, 2500)
        odds = 0.6 * hard[index] - 0.8 + 0.0008 * (model - baseline) + rng.gauss(0, 1.5)
        share: float | None = 1 / (1 + math.exp(-odds))
        share = None if rng.random() < 0.02 else share
        share = 0.5 if rng.random() < 0.01 else share
        cases.append(AnswerLengths(index, baseline, model, share))
    return GamedBaselines(tuple(rows), dict(enumerate(hard))), cases


def test_length_controlled_rate_equals_reference_values() -> None:
    """The figures are those of `alpaca_eval` 0.6.6 with scikit-learn 1.9 on the same annotations."""
    gamed, cases = make_annotations(40, seed=3)
    assert sum(case.share is None for case in cases) == 2
    full, minimal = (
        length_controlled_win_rate(cases, gamed, FAST_INTERVALS),
        length_controlled_win_rate(cases, None, FAST_INTERVALS),
    )
    assert full is not None
    assert minimal is not None
    assert full.value == pytest.approx(35.356647439848935, abs=1e-6)
    assert minimal.value == pytest.approx(35.64146360727722, abs=1e-6)
    assert full.low < full.value < full.high


def test_length_controlled_rate_equals_installed_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glm = pytest.importorskip("alpaca_eval.metrics.glm_winrate", reason="alpaca_eval is not installed")
    import pandas

    gamed, cases = make_annotations(60, seed=7)
    columns = ["std_delta_len", "instruction_difficulty", "preference"]
    table = pandas.DataFrame(gamed.rows, columns=columns).assign(index=[*range(60)] * 2, model="x")
    table.assign(not_gamed_baseline=False).to_csv(tmp_path / "df_gamed.csv", index=False)
    monkeypatch.setattr(glm, "hf_hub_download", lambda **_: str(tmp_path / "df_gamed.csv"))
    annotations = [
        {"output_1": "x" * c.baseline, "output_2": "y" * c.model, "generator_1": "base", "generator_2": "mine"}
        | {"annotator": "w", "preference": None if c.share is None else 1 + c.share}
        for c in cases
    ]
    expected = glm.get_length_controlled_winrate(pandas.DataFrame(annotations), save_weights_dir=None)
    rate = length_controlled_win_rate(cases, read_gamed_baselines(tmp_path / "df_gamed.csv"), FAST_INTERVALS)
    assert rate is not None
    assert rate.value == pytest.approx(expected["length_controlled_winrate"], abs=1e-6)


def test_length_controlled_rate_is_none_without_fit() -> None:
    equal = [AnswerLengths(n, 100, 100, 0.5) for n in range(10)]
    assert length_controlled_win_rate(equal, None, FAST_INTERVALS) is None
    answers = [AnswerLengths(n, 100 + n, 100, 0.5 if n < 4 else None) for n in range(10)]
    assert length_controlled_win_rate(answers, None, FAST_INTERVALS) is None


def test_unknown_instruction_reported() -> None:
    gamed = GamedBaselines(((0.1, 0.2, 0.5),), {0: 0.2})
    cases = [AnswerLengths(n, 100 + n, 100, 0.5) for n in range(6)]
    with pytest.raises(DataError, match=r"df_gamed\.csv has no instruction 1"):
        length_controlled_win_rate(cases, gamed, FAST_INTERVALS)


HEADER = "index,model,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"


def test_difficulty_file_read_and_errors_reported(tmp_path: Path) -> None:
    path = tmp_path / "df_gamed.csv"
    path.write_text(f"{HEADER}0,concise,0.25,1.5,-0.5,False\n0,verbose,,-1.5,-0.5,False\n")
    gamed = read_gamed_baselines(path)
    assert gamed.difficulty == {0: -0.5}
    assert gamed.rows[0] == (1.5, -0.5, 0.25)
    assert math.isnan(gamed.rows[1][2])
    for content, reason in (
        (HEADER, "has no rows"),
        (f"{HEADER}0,concise,0.25,far,-0.5,False\n", "line 2: could not convert string to float: 'far'"),
        (f"{HEADER}0,mine,0.25,1.5,-0.5,True\n", "line 2: not_gamed_baseline is 'True', expected False"),
        ("index\n0\n", "line 2: no column 'not_gamed_baseline'"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=reason):
            read_gamed_baselines(path)
