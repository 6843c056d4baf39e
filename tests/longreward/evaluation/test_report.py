from dataclasses import replace

import pytest

from longreward.evaluation.comparison import decodings
from longreward.evaluation.config import ChampionRule, EvaluateConfig
from longreward.evaluation.measures import AnswerMeasures, Decoding, measure_answers
from longreward.evaluation.report import Evaluation, markdown, summarize
from longreward.evaluation.statistics import IntervalOptions, mean, mean_difference
from longreward.records import DIMENSIONS, Response, Role, ScoredResponse, Verdict

INTERVALS = IntervalOptions(resamples=500)


def make_measures(
    role: Role, decoding: str, recalls: list[float], unsupported: float = 0.2, tokens: float = 20
) -> list[AnswerMeasures]:
    response = Response(id="1-0", example_id="1", query="q", text="a")
    return [
        AnswerMeasures(role, decoding, f"d{n}", response, {"recall": r, "unsupported": unsupported, "tokens": tokens})
        for n, r in enumerate(recalls)
    ]


LOW, HIGH = [0.4, 0.5, 0.6, 0.5] * 10, [0.7, 0.8, 0.9, 0.8] * 10


def test_mean_lies_in_interval() -> None:
    estimate = mean([("a", 1.0), ("a", 2.0), ("b", 6.0)], INTERVALS)
    assert estimate is not None
    assert estimate.value == 3.0
    assert estimate.low < 1.5 < 6.0 < estimate.high  # two documents tell little


def test_difference_paired_by_document() -> None:
    first = [(f"d{n}", float(n)) for n in range(30)]
    second = [(name, value + 1.0 + 0.1 * (-1) ** int(value)) for name, value in first]
    estimate = mean_difference(first, second, INTERVALS)
    assert estimate is not None
    assert abs(estimate.value - 1.0) < 1e-12
    assert 0.94 < estimate.low < 0.98  # the values range over 29, the differences from 0.9 to 1.1
    assert 1.02 < estimate.high < 1.06


def test_no_values_give_no_estimate() -> None:
    assert mean([], INTERVALS) is None
    assert mean_difference([("a", 1.0)], [], INTERVALS) is None


def test_better_greedy_answers_count_as_learning() -> None:
    measures = [
        *make_measures("sft", "t1", LOW), *make_measures("dpo", "t1", HIGH),
        *make_measures("sft", "greedy", LOW), *make_measures("dpo", "greedy", HIGH),
    ]  # fmt: skip
    evaluation = summarize(EvaluateConfig(), measures)
    assert evaluation.finding == "learning"
    assert "greedy (recall +0.300)" in evaluation.sentence


def test_too_few_documents_are_not_significant() -> None:
    def of(documents: int) -> list[AnswerMeasures]:
        return [*make_measures("sft", "greedy", LOW[:documents]), *make_measures("dpo", "greedy", HIGH[:documents])]

    config = EvaluateConfig(champion=ChampionRule(measure="recall", temperature=0))
    too_few, enough = summarize(config, of(5)), summarize(config, of(7))
    assert (too_few.finding, too_few.champion) == ("no improvement", False)
    assert "5 held-out documents are too few for 2 comparisons, at least 7 are needed" in too_few.sentence
    assert (enough.finding, enough.champion) == ("learning", True)
    six = summarize(config, of(6))  # enough for the champion's one measure, not for two at once
    assert (six.finding, six.champion) == ("no improvement", True)


def test_learning_lists_decodings_without_gain() -> None:
    measures = [
        *make_measures("sft", "t1", LOW), *make_measures("sft", "t0.5", HIGH), *make_measures("sft", "greedy", LOW),
        *make_measures("dpo", "t1", LOW), *make_measures("dpo", "t0.5", HIGH), *make_measures("dpo", "greedy", HIGH),
    ]  # fmt: skip
    assert "It is not better at t1 against t0.5." in summarize(EvaluateConfig(), measures).sentence


def test_gain_only_at_equal_temperature_is_sharpening() -> None:
    measures = [
        *make_measures("sft", "t1", LOW), *make_measures("sft", "t0.5", HIGH), *make_measures("sft", "greedy", HIGH),
        *make_measures("dpo", "t1", HIGH), *make_measures("dpo", "t0.5", HIGH),
        *make_measures("dpo", "greedy", HIGH, tokens=22),
    ]  # fmt: skip
    evaluation = summarize(EvaluateConfig(), measures)
    assert evaluation.finding == "only sharpening"
    assert "Only sharpening is shown" in markdown(evaluation)
    assert "+10% at greedy" in evaluation.sentence


def test_report_without_improvement_states_which_differences_it_could_show() -> None:
    values = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.4, 0.6, 0.8, 0.5]
    changed = [0.3, 0.1, 0.7, 0.5, 0.9, 0.2, 0.6, 0.4, 0.8, 0.5]  # three documents up by 0.2, three down
    evaluation = summarize(
        EvaluateConfig(), [*make_measures("sft", "greedy", values), *make_measures("dpo", "greedy", changed)]
    )
    (row,) = [row for row in evaluation.rows if row.measure == "recall"]
    detectable = row.difference.detectable
    assert detectable is not None
    assert evaluation.finding == "no improvement"
    sentence = f"The 10 held-out documents can detect a true difference of {detectable:.2f} in recall at greedy"
    assert sentence in evaluation.sentence


def test_mixed_changes_of_gold_measures_are_not_improvement() -> None:
    measures = [*make_measures("sft", "greedy", LOW, 0.1), *make_measures("dpo", "greedy", HIGH, 0.4)]
    evaluation = summarize(EvaluateConfig(), measures)
    assert evaluation.finding == "no improvement"
    assert (
        "Mixed, and therefore counted as not better: greedy (recall +0.300, unsupported +0.300)" in evaluation.sentence
    )


def test_single_model_not_compared() -> None:
    evaluation = summarize(EvaluateConfig(), make_measures("sft", "t1", LOW))
    assert (evaluation.finding, evaluation.champion, evaluation.rows) == ("not compared", False, ())


def test_champion_must_satisfy_rule() -> None:
    def champion(rule: ChampionRule, recalls: list[float]) -> bool:
        measures = [*make_measures("sft", "t1", LOW), *make_measures("dpo", "t1", recalls)]
        return summarize(EvaluateConfig(champion=rule), measures).champion

    assert champion(ChampionRule(measure="recall"), HIGH)
    assert not champion(ChampionRule(measure="recall", min_difference=0.4), HIGH)
    assert not champion(ChampionRule(measure="recall"), LOW)
    assert not champion(ChampionRule(measure="recall"), [*LOW[:-1], 1.0])  # the interval holds zero
    assert champion(ChampionRule(measure="recall", interval_excludes_zero=False), [*LOW[:-1], 1.0])
    assert not champion(ChampionRule(measure="reward"), HIGH)  # never measured here


def test_lower_unsupported_share_is_better() -> None:
    rule = EvaluateConfig(champion=ChampionRule(measure="unsupported"))
    assert summarize(rule, [*make_measures("sft", "t1", LOW, 0.4), *make_measures("dpo", "t1", LOW, 0.1)]).champion
    assert not summarize(rule, [*make_measures("sft", "t1", LOW, 0.1), *make_measures("dpo", "t1", LOW, 0.4)]).champion


def test_significantly_worse_model_is_not_champion() -> None:
    config = EvaluateConfig(champion=ChampionRule(measure="recall"))
    evaluation = summarize(config, [*make_measures("sft", "t1", HIGH), *make_measures("dpo", "t1", LOW)])
    assert (evaluation.rows[0].improvement, evaluation.champion) == (-1, False)


def test_models_have_same_metric_names() -> None:
    evaluation = summarize(EvaluateConfig(), [*make_measures("sft", "t1", LOW), *make_measures("dpo", "t1", HIGH)])
    assert evaluation.metrics("sft").keys() == evaluation.metrics("dpo").keys()
    assert evaluation.metrics("dpo")["recall/t1"] == 0.8


def test_decodings_are_unique_and_greedy_has_one_sample() -> None:
    config = EvaluateConfig(temperatures=(1.0, 0.0, 1.0), samples=3)
    assert decodings(config) == (Decoding(1.0, 3), Decoding(0.0, 1))
    assert [d.name for d in decodings(config)] == ["t1", "greedy"]


def test_truncated_answers_counted_by_model_and_decoding() -> None:
    def with_cut(role: Role, decoding: str, cut: int) -> list[AnswerMeasures]:
        all_ = make_measures(role, decoding, LOW)
        update = {"response": all_[0].response.model_copy(update={"finish_reason": "length"})}
        return [replace(one, **update) if n < cut else one for n, one in enumerate(all_)]

    measures = [*with_cut("sft", "t1", 3), *with_cut("dpo", "t1", 11), *with_cut("sft", "greedy", 0)]
    evaluation = summarize(EvaluateConfig(), [*measures, *make_measures("dpo", "greedy", LOW)])
    assert evaluation.metrics("sft")["truncated/t1"] == 3.0
    assert (evaluation.metrics("dpo")["truncated/t1"], evaluation.metrics("dpo")["truncated/greedy"]) == (11.0, 0.0)
    assert "| dpo | t1 | 40 | 40 | 11 |" in markdown(evaluation)


def test_unscored_verdict_omits_measure() -> None:
    verdicts = {d: Verdict(score=6.0) for d in DIMENSIONS} | {"logicality": Verdict(score=None, reason="unreadable")}
    response = Response(id="1-0", example_id="1", query="q", text="a", tokens=3)
    (one,) = measure_answers(
        "sft", Decoding(1.0, 1), {"1": "d"}, [ScoredResponse(response=response, verdicts=verdicts)], None
    )
    assert one.values == {"helpfulness": 6.0, "faithfulness": 6.0, "completeness": 6.0, "tokens": 3.0}
    assert one.document_id == "d"


def test_configured_confidence_applies_to_intervals_and_marks() -> None:
    measures = [
        *make_measures("sft", "greedy", LOW[:5]),
        *make_measures("dpo", "greedy", HIGH[:5]),
    ]  # p = 2 / 2 ** 5, twice
    strict, loose = (summarize(EvaluateConfig(confidence=confidence), measures) for confidence in (0.95, 0.8))
    assert [row.improvement for row in strict.rows] == [0, 0, 0]
    assert [row.improvement for row in loose.rows] == [1, 0, 0]
    assert (strict.rows[0].measure, strict.rows[0].difference.level) == ("recall", pytest.approx(0.05))
    assert loose.rows[0].first.low > strict.rows[0].first.low + 0.02
    assert "Intervals (80%)" in markdown(loose)
    assert "if p is at most 0.2:" in markdown(loose)
    assert "5 held-out documents are too few" in strict.sentence
    assert loose.finding == "learning"


def test_bounds_of_measure_equal_interval() -> None:
    response = Response(id="1-0", example_id="1", query="q", text="a")
    values = {"recall": 0.95, "reward": 9.5, "tokens": 9.5}
    measures = [
        AnswerMeasures(
            role, "greedy", f"d{n}", response, {name: value + (n == 3) * 0.04 for name, value in values.items()}
        )
        for role in ("sft", "dpo")
        for n in range(6)
    ]
    evaluation = summarize(EvaluateConfig(), [*measures, *make_measures("sft", "t1", [1.0] * 6)])
    of_sft = {row.measure: row.first for row in evaluation.rows}
    assert of_sft["recall"].high <= 1.0
    right = evaluation.means["sft", "t1"]["recall"]
    assert (right.high, right.low) == (1.0, pytest.approx(0.54, abs=0.03))  # all of six are right
    rewards = [
        AnswerMeasures(role, "greedy", f"d{n}", response, {"reward": 9.0 + n % 2 * 0.9})
        for role in ("sft", "dpo")
        for n in range(6)
    ]
    [row] = summarize(EvaluateConfig(), rewards).rows
    assert row.first.high <= 10.0


def test_report_corrects_for_number_of_measures() -> None:
    response = Response(id="1-0", example_id="1", query="q", text="a")

    def report(others: int) -> Evaluation:
        names = ("helpfulness", "logicality", "faithfulness", "completeness", "reward", "unsupported")[:others]
        measures = [
            AnswerMeasures(
                role, "greedy", f"d{n}", response, dict.fromkeys(names, 0.5) | {"recall": recalls[n], "tokens": 3.0}
            )  # type: ignore[arg-type]
            for role, recalls in (("sft", LOW), ("dpo", HIGH))
            for n in range(8)
        ]
        return summarize(EvaluateConfig(), measures)

    # Eight documents that all go one way have p = 2 / 2 ** 8, which 6 claims leave at .047 and 7 do not.
    assert [report(others).rows[0].improvement for others in (5, 6)] == [1, 0]
    assert report(5).rows[0].difference.p_corrected == 6 * 2 / 2**8
    assert "corrected for all 6 comparisons" in markdown(report(5))
    assert report(6).finding == "no improvement"


def test_higher_unsupported_share_is_worse() -> None:
    evaluation = summarize(
        EvaluateConfig(),
        [*make_measures("sft", "greedy", LOW, 0.1), *make_measures("dpo", "greedy", LOW, 0.4, tokens=30)],
    )
    assert {row.measure: row.improvement for row in evaluation.rows} == {"recall": 0, "unsupported": -1, "tokens": 0}
    assert [line.split(" | ")[-2] for line in markdown(evaluation).splitlines() if "| unsupported |" in line] == [
        "worse"
    ]


def test_dpo_at_1_compared_only_with_sft_at_lower_temperatures() -> None:
    config = EvaluateConfig(temperatures=(1.0, 0.7, 1.3, 0.0))
    found = [(row.comparison, round(row.first.value, 2), round(row.second.value, 2)) for row in summarize(config, [
        *make_measures("sft", "t1", LOW), *make_measures("dpo", "t1", HIGH),
        *make_measures("sft", "t0.7", [0.6] * 40), *make_measures("dpo", "t0.7", [0.7] * 40),
        *make_measures("sft", "t1.3", [0.1] * 40), *make_measures("dpo", "t1.3", [0.2] * 40),
    ]).rows if row.measure == "recall"]  # fmt: skip
    assert found == [("t1", 0.5, 0.8), ("t0.7", 0.6, 0.7), ("t1.3", 0.1, 0.2), ("t1 against t0.7", 0.6, 0.8)]
