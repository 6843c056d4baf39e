"""Predictions of other tools, scored with a benchmark's metrics."""

import json
import os
from pathlib import Path

import pytest

from longreward.benchmarks.alpaca_eval import AlpacaEval
from longreward.benchmarks.alpaca_eval.annotations import is_annotations, read_annotations
from longreward.benchmarks.longbench.official import LongBenchOfficial
from longreward.benchmarks.predictions import match_predictions, score_predictions
from longreward.data.predictions import Prediction
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions

INTERVALS = IntervalOptions(resamples=10)


@pytest.fixture
def toy():
    return LongBenchOfficial(sets=["multifieldqa_en", "multi_news"])


def test_predictions_match_by_id_position_and_prompt(toy):
    first, second = toy.cases[0], toy.cases[1]
    prompt = toy.case_text(toy.cases[2])
    matched = match_predictions(
        toy,
        [
            Prediction(("by prompt",), prompt=f"{prompt}\n"),
            Prediction(("by id",), id=first.id),
            Prediction(("by position",), position=("longbench_multifieldqa_en", 1)),
            Prediction(("again",), id=first.id),
            Prediction(("of none",), id="qasper/1", position=("qasper", 0)),
        ],
    )
    assert [(case.id, answer.turns[0]) for case, answer in matched.items] == [
        ("multifieldqa_en/1", "by id"),
        ("multifieldqa_en/2", "by position"),
        ("multifieldqa_en/3", "by prompt"),
    ]
    assert second.id == "multifieldqa_en/2"
    assert (len(matched.unmatched), matched.repeated) == (1, 1)


async def test_scores_are_those_of_the_benchmark(toy):
    case = toy.cases[0]
    matched = match_predictions(
        toy, [Prediction((case.answers[0],), id=case.id), Prediction(("?",), id=toy.cases[1].id)]
    )
    scores = await score_predictions(toy, None, matched.items, INTERVALS)
    assert scores.summary.to_dict()["longbench_official/score"] == 50.0
    assert scores.summary.metrics[0].cases == 2


def test_document_of_another_version_is_error(toy):
    prediction = Prediction(("x",), position=("multifieldqa_en", 0), context="Another document.")
    with pytest.raises(DataError, match="is not that of the case multifieldqa_en/1"):
        match_predictions(toy, [prediction])


def test_predictions_for_other_cases_are_error(toy):
    with pytest.raises(DataError, match=r"none of 1 predictions answers a case of longbench_official.*--folder"):
        match_predictions(toy, [Prediction(("x",), id="hotpotqa/1")])


@pytest.mark.parametrize("position", ["multi_news", "longbench_multi_news", "longbench_multi_news_e"])
async def test_official_records_with_rouge_of_their_own_summary(position, tmp_path):
    folder = os.environ.get("LONGREWARD_REFERENCE")
    if not folder:
        pytest.skip("LONGREWARD_REFERENCE names no folder with the official files")
    limits = tmp_path / "dataset2maxlen.json"
    limits.write_text('{"multi_news": 512}')
    data = Path(folder) / "longbench"
    benchmark = LongBenchOfficial(
        folder=data, templates=data / "dataset2prompt.json", limits=limits, sets=["multi_news"]
    )  # fmt: skip
    rows = [json.loads(line) for line in (data / "multi_news.jsonl").read_text(encoding="utf-8").splitlines()]
    predictions = [
        Prediction((row["answers"][0],), position=(position, number), context=row["context"])
        for number, row in enumerate(rows)
    ]
    matched = match_predictions(benchmark, predictions)
    assert len(matched.items) == len(rows) == 8
    scores = await score_predictions(benchmark, None, matched.items, INTERVALS)
    assert scores.summary.metrics[0].estimate.value == pytest.approx(100.0)


# --- annotations of AlpacaEval ----------------------------------------------------------------------------------------


def annotation(number, preference, **fields):
    return {
        "instruction": f"Instruction {number}",
        "output_1": "a",
        "generator_1": "gpt4_1106_preview",
        "dataset": "d",
        "output_2": "bc",
        "generator_2": "sft",
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "preference": preference,
    } | fields


def completion(first, second):
    """Return an annotator's reply as the library stores it, with log probabilities of m and M."""
    top = [{"token": "m", "logprob": first}, {"token": "M", "logprob": second}]
    return {"text": "M", "logprobs": {"content": [{"token": "M", "top_logprobs": top}]}, "total_tokens": 390.0}


def read(tmp_path, rows, *, parsing="strict"):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    assert is_annotations(path)
    return read_annotations(path, AlpacaEval(baseline=path), parsing=parsing)


def test_stated_preferences(tmp_path):
    preferences = [1, 2.0, "1.25", 0, 1.5, None, "M", 3, -1]
    annotations = read(tmp_path, [annotation(number, value) for number, value in enumerate(preferences)])
    assert [verdict.value for verdict in annotations.verdicts] == [0, 1, 0.25, 0.5, 0.5, None, None, None, None]
    assert [verdict.reason for verdict in annotations.verdicts[5:]] == [
        "the preference is None",
        "the preference is 'M'",
        "the preference is 3",
        "the preference is -1",
    ]
    assert (annotations.model, annotations.annotator) == ("sft", "weighted_alpaca_eval_gpt4_turbo")


def test_null_preferences_are_parsed_from_raw_completions(tmp_path):
    # AlpacaEval shows the model's output first for the instructions "a" and "b", second for "c" and "d".
    rows = [
        annotation(0, None, instruction=name, raw_completion=raw)
        for name, raw in (
            ("a", completion(-3.0, -1.0)),
            ("c", completion(-3.0, -1.0)),
            ("d", "M"),
            ("b", {"text": "?"}),
        )
    ]
    values = [verdict.value for verdict in read(tmp_path, rows).verdicts]
    share = 0.8807970779778823  # of M: 1 / (1 + exp(-2))
    assert values == [pytest.approx(1 - share), pytest.approx(share), 1.0, None]
    # The published code needs the probabilities.
    assert read(tmp_path, rows, parsing="published").verdicts[2].value is None


async def test_rates_of_annotations_need_no_judge(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([annotation(number, value) for number, value in enumerate((1.0, 2.0, 1.5, None))]))
    benchmark = AlpacaEval(baseline=path)
    annotations = read_annotations(path, benchmark, parsing="strict")
    metrics = benchmark.summarize(annotations.answers, annotations.verdicts, INTERVALS).to_dict()
    assert metrics["alpaca_eval/win_rate"] == 50.0
    assert metrics["alpaca_eval/win_rate/unscored"] == 1
    assert metrics["alpaca_eval/discrete_win_rate"] == 50.0
    assert metrics["alpaca_eval/length"] == 2.0


def test_annotations_of_other_instructions_baselines_or_models_are_errors(tmp_path):
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps([{"instruction": "Instruction 0", "output": "a", "generator": "base"}]))
    benchmark = AlpacaEval(baseline=baseline)
    path = tmp_path / "annotations.json"

    def read_rows(*rows):
        path.write_text(json.dumps(rows))
        return read_annotations(path, benchmark, parsing="strict")

    assert read_rows(annotation(0, 2), annotation(1, 1)).unmatched == 1
    with pytest.raises(DataError, match="none of 1 instructions is among those of the benchmark"):
        read_rows(annotation(1, 1))
    with pytest.raises(DataError, match="output_1 of instruction 0 is not the output of the benchmark's baseline"):
        read_rows(annotation(0, 1, output_1="other"))
    with pytest.raises(DataError, match="annotations of 2 models"):
        read_rows(annotation(0, 1), annotation(1, 1, generator_2="dpo"))
    with pytest.raises(DataError, match=r"entry 1: output_2 is None"):
        read_rows(annotation(0, 1, output_2=None))
