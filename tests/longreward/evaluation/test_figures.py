"""Figures that a browser can draw."""

from xml.etree import ElementTree

from longreward.evaluation.charts import BOTTOM, PANEL_HEIGHT, TOP, Histogram, histograms
from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, EvaluateConfig
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.plots import figures, plot_points
from longreward.evaluation.report import summarize
from longreward.records import Response

SVG = "{http://www.w3.org/2000/svg}"


def measured(**values: float) -> list[AnswerMeasures]:
    response = Response(id="1-0", example_id="1", query="q", text="a")
    return [AnswerMeasures(role, "greedy", "d", response, values) for role in ("sft", "dpo")]  # type: ignore[arg-type]


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_a_bar_is_as_tall_as_its_score_on_the_scale_of_ten_and_says_its_value() -> None:
    answers = measured(reward=10.0, faithfulness=5.0, tokens=20.0)
    made = figures(summarize(EvaluateConfig(), answers), answers)
    assert set(made) == {"rewards.svg", "lengths.svg"}  # no gold facts, no figure of them
    bars = [r for r in drawn(made["rewards.svg"]).iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None]
    heights = {str(bar.find(f"{SVG}title").text): float(bar.attrib["height"]) for bar in bars}  # type: ignore[union-attr]
    heights = {title.partition(" [")[0]: height for title, height in heights.items()}
    assert heights["SFT, reward: 10.000"] == PANEL_HEIGHT - TOP - BOTTOM
    assert heights["DPO, faithfulness: 5.000"] == (PANEL_HEIGHT - TOP - BOTTOM) / 2


def test_gold_measures_have_a_figure_of_their_own() -> None:
    answers = measured(recall=0.5, reward=5.0)
    assert "gold.svg" in figures(summarize(EvaluateConfig(), answers), answers)


def test_a_histogram_has_an_outline_a_series_and_names_with_marks_in_them_do_no_harm() -> None:
    panel = Histogram("t<1>", {"a&b": [1.0, 2.0, 3.0], "none": []})
    root = drawn(histograms('5" & more', [panel], unit="tokens", bins=2))
    outlines = [polygon.attrib["points"].split() for polygon in root.iter(f"{SVG}polygon")]
    assert [len(points) for points in outlines] == [6, 6]  # both ends on the axis, two points a bin
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"t<1>", "a&b", '5" & more', "tokens", "1", "3"} <= set(words)


def test_equal_lengths_are_one_full_bin() -> None:
    root = drawn(histograms("same", [Histogram("greedy", {"SFT": [7.0, 7.0]})], unit="tokens"))
    assert [text.text for text in root.iter(f"{SVG}text")].count("100%") == 1


def test_a_plot_has_one_point_a_decoding_measure_and_model_and_none_for_what_was_not_measured() -> None:
    evaluation = summarize(EvaluateConfig(), measured(recall=0.5, reward=5.0))
    assert plot_points(evaluation, GOLD_MEASURES) == [
        {"bar": "greedy recall SFT", "value": 0.5},
        {"bar": "greedy recall DPO", "value": 0.5},
    ]
    assert [point["bar"] for point in plot_points(evaluation, JUDGED_MEASURES)] == [
        "greedy reward SFT",
        "greedy reward DPO",
    ]
