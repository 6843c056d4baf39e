"""Figures of an evaluation."""

from longreward.evaluation.charts import draw_differences, draw_histograms
from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, EvaluateConfig
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.plots import figures, plot_points
from longreward.evaluation.report import summarize
from longreward.evaluation.statistics import Estimate
from longreward.records import Response


def make_measures(**values: float) -> list[AnswerMeasures]:
    response = Response(id="1-0", example_id="1", query="q", text="a")
    return [AnswerMeasures(role, "greedy", "d", response, values) for role in ("sft", "dpo")]  # type: ignore[arg-type]


def test_bars_have_height_of_scores_on_axis_to_ten(tmp_path) -> None:
    answers = make_measures(reward=10.0, faithfulness=5.0, tokens=20.0)
    drawn = figures(summarize(EvaluateConfig(), answers), answers)
    assert set(drawn) == {"rewards.svg", "lengths.svg"}  # no gold measures, no figure of them
    [axis] = drawn["rewards.svg"].axes
    assert axis.get_ylim() == (0.0, 10.0)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["reward", "faithfulness"]
    assert [bar.get_height() for bar in axis.patches] == [10.0, 5.0, 10.0, 5.0]
    assert axis.patches[0].get_x() < axis.patches[2].get_x() < axis.patches[1].get_x()  # SFT next to DPO
    drawn["rewards.svg"].savefig(tmp_path / "rewards.svg")
    assert (tmp_path / "rewards.svg").read_text().startswith("<?xml")


def test_gold_measures_have_own_figure() -> None:
    answers = make_measures(recall=0.5, reward=5.0)
    assert "gold.svg" in figures(summarize(EvaluateConfig(), answers), answers)


def test_histogram_shows_shares_in_common_bins_and_accepts_empty_series() -> None:
    figure = draw_histograms("lengths", {"t1": {"SFT": [1.0, 2.0, 3.0, 3.0], "DPO": []}}, "tokens", bins=2)
    [axis] = figure.axes
    heights = axis.patches[0].get_xy()[:, 1].max()
    assert heights == 0.75  # 2 and 3 share the upper bin
    assert axis.get_xlabel() == "tokens"


def test_differences_colored_by_improvement_on_symmetric_axis() -> None:
    rows = {"a": (Estimate(0.5, 0.2, 0.8, 9), 1), "b": (Estimate(-0.1, -0.3, 0.1, 9), 0)}
    [axis] = draw_differences("all", {"recall": rows}).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    low, high = axis.get_xlim()
    assert low == -high
    colors = [container.lines[0].get_color() for container in axis.containers]
    assert colors == ["#2f6fde", "#9aa5b1"]


def test_plot_points_have_one_bar_per_decoding_measure_and_model() -> None:
    evaluation = summarize(EvaluateConfig(), make_measures(recall=0.5, reward=5.0))
    assert plot_points(evaluation, GOLD_MEASURES) == [
        {"bar": "greedy recall SFT", "value": 0.5},
        {"bar": "greedy recall DPO", "value": 0.5},
    ]
    assert [point["bar"] for point in plot_points(evaluation, JUDGED_MEASURES)] == [
        "greedy reward SFT",
        "greedy reward DPO",
    ]
